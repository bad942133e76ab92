# Pipelines: what the provider stores outside their files. scripts/provider.py calls the provider's client.

##@ Pipelines

.PHONY: ci-setup ci-check ci-promote
ci-setup: $(READY) ## create what is missing at the provider: variables, secrets, environments, schedules
	@$(RUN)python scripts/ci.py setup

ci-check: $(READY) ## check the same, and say what is missing
	@$(RUN)python scripts/ci.py check

ci-promote: $(READY) ## ENV=: in a pipeline, promote in the name of the approver (VERSION=)
	@$(RUN)python scripts/ci.py promote '$(ENV)'
