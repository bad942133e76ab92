# How the environment is made and entered: conda. Nothing else in the project knows.

VERSION_FILE := $(shell cat .python-version)
# The first that is there; each of them reads environment.yml.
CONDA_EXE ?= $(firstword $(foreach name,micromamba mamba conda,$(shell command -v $(name) 2>/dev/null)))
RUN := .venv/bin/
# Of what the environment does not hold, uv makes the lock and runs the tools.
TOOLS := var/tools/uv-0.13
UV = $(TOOLS)/bin/uv
FETCH = { test -e $(TOOLS)/.ready || { { $(NEED); } && rm -rf $(TOOLS) \
	&& $(CONDA_EXE) create python=$(VERSION_FILE) uv=0.13 --yes --quiet --prefix $(TOOLS) \
		--override-channels --channel conda-forge >&2 && touch $(TOOLS)/.ready; }; }
# $(call TOOL,PACKAGE==VERSION,COMMAND,CONSTRAINTS) runs a tool apart from the project.
TOOL = $(FETCH) && $(UV) tool run --quiet --python $(TOOLS)/bin/python --from '$(1)' $(if $(3),--constraints $(3)) $(2)
LOCKER = $(FETCH) && $(UV)

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_COMPILE = 1
export PIP_ROOT_USER_ACTION = ignore

NEED = test -n '$(CONDA_EXE)' || { echo "error: micromamba, mamba or conda is not there; install one (https://conda-forge.org/download), or say where it is: make CONDA_EXE=/path/to/conda" >&2; exit 1; }

.venv/.ready: locks/dev.txt .python-version pyproject.toml environment.yml
	@$(NEED)
	@rm -rf .venv
	@echo "installing environment.yml into .venv" >&2
	@$(CONDA_EXE) env create --yes --quiet --prefix .venv --file environment.yml >&2
	@$(RUN)python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
