# How an environment is served: Kubernetes. scripts/deploy.py calls kubectl; deploy/kubernetes has the
# manifests.

DEPLOY = $(RUN)python scripts/deploy.py $(call Q,ENV) $(if $(CONTEXT),--context $(call Q,CONTEXT)) $(if $(YES),--yes)

.PHONY: deploy
deploy: $(READY) ## ENV=: roll out the image of what it holds (CONTEXT=, YES=1); RENDER=: only write the manifests
	@$(DO) image --env $(call Q,ENV)
	@$(DEPLOY) $(if $(RENDER),--render $(call Q,RENDER))

# Where a cluster is set up, it must be able to take the change before the registry has it.
HAS_CLUSTER = kubectl config current-context >/dev/null 2>&1
rollback: $(READY) ## ENV=: return to the previous version, and roll its image out (BY=, CONTEXT=, YES=1)
	@! $(HAS_CLUSTER) || $(DEPLOY) --check --ask
	@$(DO) rollback --env $(call Q,ENV) --by $(call Q,BY)
	@if $(HAS_CLUSTER); then $(MAKE) --no-print-directory deploy; \
		else echo "no cluster is set up here, so none has changed; where one is: make deploy ENV=$(ENV)"; fi
