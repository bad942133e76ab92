# The registry's server with its pages: pinned apart, since the project does not depend on it. It
# asks for a login.
FROM build AS mlflow-packages
COPY constraints.mlflow.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=ca \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip-install --constraint constraints.mlflow.txt '{{ ([model_registry_facts[model_registry].server] + model_registry_facts[model_registry].beside) | join("' '") }}'

FROM run AS mlflow
COPY --from=mlflow-packages /packages /packages
COPY --chmod=0644 deploy/mlflow/logins.ini ./
ENV MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_AUTH_CONFIG_PATH=/app/logins.ini
EXPOSE 5000
ENTRYPOINT ["python3", "-m", "mlflow"]
CMD ["server", "--app-name", "basic-auth", "--host", "0.0.0.0"]
