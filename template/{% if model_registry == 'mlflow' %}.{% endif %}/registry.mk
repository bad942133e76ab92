# The registry's own pages. The server is pinned and run apart: its dependencies are not the project's.

UI_PORT ?= 5000

.PHONY: ui
ui: ## MLflow's pages: runs, models, versions (UI_PORT=5000)
	@mkdir -p var
	@echo "http://127.0.0.1:$(UI_PORT)"
	@$(call TOOL,mlflow==3.17.2,mlflow,constraints.mlflow.txt) server --host 127.0.0.1 --port $(UI_PORT) \
		--backend-store-uri $(or $(MLFLOW_TRACKING_URI),sqlite:///var/mlflow.db) \
		--serve-artifacts --artifacts-destination var/artifacts
