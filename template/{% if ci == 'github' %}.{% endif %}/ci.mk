# What the pipelines ask of GitHub itself, through its own client, gh.

##@ Pipelines

.PHONY: propose
propose: ## a pull request with what `make update` did; an issue where nothing may be pushed
	@sh .github/propose.sh
