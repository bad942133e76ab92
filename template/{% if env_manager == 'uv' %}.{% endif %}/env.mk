# How the environment is made and entered: uv. Nothing else in the project knows.

# Inside a folder with a .python-version, pyenv hides a uv that belongs to another Python.
UV ?= $(shell uv --version >/dev/null 2>&1 && echo uv || { cd / && pyenv which uv; } 2>/dev/null || echo uv)
PYTHON ?= $(shell cat .python-version)
RUN := .venv/bin/
# $(call TOOL,PACKAGE==VERSION,COMMAND,CONSTRAINTS) runs a tool apart from the project.
TOOL = { $(NEED); } && $(UV) tool run --quiet --from '$(1)' $(if $(3),--constraints $(3)) $(2)
LOCKER = { $(NEED); } && $(UV)

NEED = $(UV) --version >/dev/null 2>&1 || { echo "error: uv is not there; install it (pipx install uv), or say where it is: make UV=/path/to/uv" >&2; exit 1; }

.venv/.ready: locks/dev.txt .python-version pyproject.toml
	@$(NEED)
	@rm -f $@
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv
	@echo "installing locks/dev.txt into .venv" >&2
	@$(UV) pip sync --quiet --require-hashes --python .venv locks/dev.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python .venv --editable .
	@touch $@
