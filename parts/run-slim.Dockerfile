# RUN: without root, and without writing anywhere but to var, reports and /tmp.
FROM ${BASE} AS run
USER 0
ENV PYTHONPATH=/app/src:/packages PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 HOME=/tmp USER=app
WORKDIR /app
# Group 0 may write too: some clusters choose a user id of their own.
RUN mkdir -p var/bundles reports && chown -R 10001:0 var reports && chmod -R g=u var reports
USER 10001:0
