# RUN: without root, and without writing anywhere but to the folders below and /tmp.
FROM ${BASE} AS run
USER 0
ENV PYTHONPATH=/app/src:/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 HOME=/tmp USER=app
WORKDIR /app
# Group 0 may write too: some clusters choose a user id of their own.
RUN mkdir -p var/bundles reports data/snapshots \
    && chown -R 10001:0 var reports data && chmod -R g=u var reports data
USER 10001:0
