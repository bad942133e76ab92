# The registry's own pages: W&B's, so there is nothing to start here.

.PHONY: ui
ui: ## where W&B shows runs, models and versions
	@$(RUN)python -c 'import $(PACKAGE).registry.store, wandb; print("W&B is at", wandb.setup().settings.app_url)'
	@$(if $(filter offline disabled dryrun,$(WANDB_MODE)),echo "WANDB_MODE=$(WANDB_MODE): nothing is sent there; versions are in var/registry")

# A pipeline without a team, such as that of a pull request, trains offline and registers nothing.
ifneq ($(CI)$(TF_BUILD),)
ifeq ($(WANDB_ENTITY),)
export WANDB_MODE ?= offline
endif
endif
