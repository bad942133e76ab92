# How an environment is served: compose, on this machine.

.PHONY: deploy
deploy: ## ENV=: serve that environment on this machine, with compose
	@test -n '$(ENV)' || { echo "error: say which environment: make deploy ENV=test|staging|production" >&2; exit 1; }
	@$(MAKE) --no-print-directory up ENV='$(ENV)'

# The server follows the registry, so there is nothing to do here.
rollback: $(READY) ## ENV=: return to the previous version (BY=)
	@$(DO) rollback --env $(call Q,ENV) --by $(call Q,BY)
