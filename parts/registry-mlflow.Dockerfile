# The registry's server with its pages: pinned apart, since the project does not depend on it.
FROM build AS mlflow-packages
COPY constraints.mlflow.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=ca \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip-install --constraint constraints.mlflow.txt {{ model_registry_facts[model_registry].server }}

FROM run AS mlflow
COPY --from=mlflow-packages /packages /packages
ENV MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
EXPOSE 5000
ENTRYPOINT ["python3", "-m", "mlflow"]
CMD ["server", "--host", "0.0.0.0"]
