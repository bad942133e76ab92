# Images and how they are deployed: compose, on one machine.

ENGINE ?= docker
IMAGE ?= $(subst _,-,$(PACKAGE))
TAG ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo none)
COMPOSE = IMAGE='$(IMAGE)' $(if $(ENV),ENV='$(ENV)') $(ENGINE) compose
# podman writes HEALTHCHECK in this format only.
export BUILDAH_FORMAT = docker
# An index or certificates of your own reach the build as secrets and leave no trace in the image.
CA = $(firstword $(PIP_CERT) $(SSL_CERT_FILE) $(REQUESTS_CA_BUNDLE))
PROXIES = HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
BUILD = $(ENGINE) build $(if $(BASE),--build-arg BASE='$(BASE)') --build-arg COMMIT='$(TAG)' \
	$(foreach name,$(PROXIES),$(if $($(name)),--build-arg $(name))) \
	$(if $(PIP_INDEX_URL),--secret id=index$(,)env=PIP_INDEX_URL) \
	$(if $(PIP_CONFIG_FILE),--secret id=pip_conf$(,)src='$(PIP_CONFIG_FILE)') \
	$(if $(CONDARC),--secret id=condarc$(,)src='$(CONDARC)') \
	$(if $(CA),--secret id=ca$(,)src='$(CA)')
, := ,
ENGINE_IS = command -v '$(ENGINE)' >/dev/null || { echo "error: $(ENGINE) is not there; install it, or say which engine: make ENGINE=podman" >&2; exit 1; }

##@ Deployment

.PHONY: image smoke up down deploy
image: locks/dev.txt ## build the images, named by the commit (BASE=, ENGINE=podman)
	@$(ENGINE_IS)
	@$(BUILD) --target serve --tag '$(IMAGE):$(TAG)' --tag '$(IMAGE):latest' .
	@$(BUILD) --target job --tag '$(IMAGE)-job:$(TAG)' --tag '$(IMAGE)-job:latest' .
	@echo "$(IMAGE):$(TAG) and $(IMAGE)-job:$(TAG)"

smoke: image | $(READY) ## start the image without rights on what ENV=test holds and compare its answers (BUNDLE=)
	@$(DO) smoke --env '$(or $(ENV),test)' --bundle '$(BUNDLE)' --engine '$(ENGINE)' '$(IMAGE):$(TAG)'

up: image ## start server, follower, journal and MLflow with compose (PROFILE=observability)
	@test -f .env || cp .env.example .env
	@mkdir -p reports && chmod 777 reports
	@$(BUILD) --target mlflow --tag '$(IMAGE)-mlflow:latest' .
	@$(COMPOSE) $(if $(PROFILE),--profile '$(PROFILE)') up --detach --wait

down: ## stop them; the data stays
	@$(ENGINE_IS)
	@$(COMPOSE) --profile '*' down

deploy: ## ENV=: serve that environment here, with compose
	@test -n '$(ENV)' || { echo "error: say which environment: make deploy ENV=test|staging|production" >&2; exit 1; }
	@$(MAKE) --no-print-directory up ENV='$(ENV)'
