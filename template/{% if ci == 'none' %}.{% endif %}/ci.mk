# Pipelines: this project has none.

##@ Pipelines

.PHONY: ci-setup ci-check ci-promote ci-deploy ci-rollback
ci-setup: ## this project has no pipelines: make update CHOICE='ci=github' adds some
	@echo "error: no pipelines were chosen; make update CHOICE='ci=github' chooses some" >&2; exit 1

ci-check: ci-setup ## the same

ci-promote: ci-setup ## the same; by hand: make promote ENV=production

ci-deploy: ci-setup ## the same; by hand: make deploy ENV=production

ci-rollback: ci-setup ## the same; by hand: make rollback ENV=production
