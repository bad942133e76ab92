# RUN: without root, and without writing anywhere but to the folders below and /tmp. There may be no
# shell here, so nothing is run.
FROM {{ docker_base_facts[docker_base].run }} AS run
USER 0
ENV PYTHONPATH=/app/src:/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 HOME=/tmp USER=app
WORKDIR /app
COPY --from=folders --chown=10001:0 /folders/ ./
USER 10001:0
