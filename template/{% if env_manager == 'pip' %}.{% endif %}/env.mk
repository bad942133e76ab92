# How the environment is made and entered: pip and venv. Nothing else in the project knows.

VERSION_FILE := $(shell cat .python-version)
PYTHON ?= python$(VERSION_FILE)
RUN := .venv/bin/
# $(call TOOL,PACKAGE==VERSION,COMMAND,CONSTRAINTS) runs a tool apart from the project.
TOOL = $(call FETCH,$(1),$(2),$(3)) && var/tools/$(1)/bin/$(2)
FETCH = { test -e var/tools/$(1)/.ready || { { $(NEED); } && $(PYTHON) -m venv --clear var/tools/$(1) \
	&& var/tools/$(1)/bin/python -m pip install --quiet $(if $(3),--constraint $(3)) '$(1)' \
	&& touch var/tools/$(1)/.ready; }; }
# The lock holds for every platform, which pip cannot resolve for yet: uv does, fetched for this alone.
LOCKER = $(call TOOL,uv==0.13.9,uv)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

NEED = $(PYTHON) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION_FILE)")' 2>/dev/null \
	|| { echo "error: $(PYTHON) is not a Python $(VERSION_FILE); install that, or say where it is: make PYTHON=/path/to/python" >&2; exit 1; }

.venv/.ready: locks/dev.txt .python-version pyproject.toml
	@$(NEED)
	@rm -f $@
	@$(PYTHON) -m venv --clear .venv
	@echo "installing locks/dev.txt into .venv" >&2
	@$(RUN)python -m pip install --quiet --no-compile --require-hashes --no-deps --requirement locks/dev.txt
	@$(RUN)python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
