# Pipelines: what of them lies outside the files. scripts/provider.py knows the provider's client.

##@ Pipelines

.PHONY: ci-setup ci-check ci-promote
ci-setup: $(READY) ## make what is missing there: variables, secrets, environments, schedules
	@$(RUN)python scripts/ci.py setup

ci-check: $(READY) ## read it back, and say which promise does not hold
	@$(RUN)python scripts/ci.py check

ci-promote: $(READY) ## ENV=: in a pipeline, promote in the name of who approved it (VERSION=)
	@$(RUN)python scripts/ci.py promote '$(ENV)'
