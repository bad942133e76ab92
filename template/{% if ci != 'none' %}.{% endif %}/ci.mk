# Pipelines: what the provider stores outside their files. scripts/provider.py calls the provider's client.

# A pipeline passes on what nobody set as empty; a cloud's client would take that for a region or an address.
unexport $(foreach name,$(filter AWS_% AZURE_STORAGE_%,$(.VARIABLES)),$(if $($(name)),,$(name)))

##@ Pipelines

.PHONY: ci-setup ci-check ci-promote ci-deploy ci-rollback
ci-setup: $(READY) ## create what is missing at the provider: variables, secrets, environments, schedules
	@$(RUN)python scripts/ci.py setup

ci-check: $(READY) ## check the same, and say what is missing
	@$(RUN)python scripts/ci.py check

ci-promote: $(READY) ## ENV=: in a pipeline, promote in the name of the approver (VERSION=)
	@$(RUN)python scripts/ci.py promote '$(ENV)'

# A machine that runs containers need not have the project's environment.
ci-deploy: ## ENV=: in a pipeline, deploy where the variable DEPLOY_STAGING or DEPLOY_PRODUCTION says
	@python3 scripts/ci.py deploy '$(ENV)'

ci-rollback: $(READY) ## ENV=: in a pipeline, roll back in the name of the approver
	@$(RUN)python scripts/ci.py rollback '$(ENV)'
