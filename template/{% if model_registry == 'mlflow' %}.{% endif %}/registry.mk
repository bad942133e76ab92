# The registry's own pages. The server is pinned and runs apart: its dependencies are not ours.

UI_PORT ?= 5000
PAGES = $(call TOOL,mlflow==3.17.2,mlflow,constraints.mlflow.txt) server --workers 1 \
	--host 127.0.0.1 --port $(UI_PORT) --backend-store-uri sqlite:///var/mlflow.db \
	--serve-artifacts --artifacts-destination var/artifacts

##@ Registry

.PHONY: ui
ui: export MLFLOW_SERVER_ENABLE_JOB_EXECUTION = false
ui: ## serve MLflow's pages: runs, models, versions (UI_PORT=5000)
	@mkdir -p var
	@echo "MLflow is at $(or $(MLFLOW_TRACKING_URI),http://127.0.0.1:$(UI_PORT)); its models: /#/models"
	@$(if $(MLFLOW_TRACKING_URI),,$(PAGES))
