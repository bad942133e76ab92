# Every command but the server.
FROM run AS job
COPY --from=job-packages /packages /packages
COPY --from=code /app/src src
COPY pyproject.toml settings.toml* ./
COPY locks locks
COPY loadtest loadtest
COPY data data
ARG COMMIT=none
LABEL org.opencontainers.image.revision=${COMMIT}
ENTRYPOINT ["python3", "-m", "{{ package }}"]
CMD ["--help"]

# The server.
FROM run AS serve
COPY --from=serve-packages /packages /packages
COPY --from=code /app/src src
COPY pyproject.toml settings.toml* ./
ENV SERVING_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SERVING_PORT', 8000)), timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ARG COMMIT=none
LABEL org.opencontainers.image.revision=${COMMIT}
ENTRYPOINT ["python3", "-m", "{{ package }}"]
CMD ["serve", "--no-follow"]

# The server with one version in it, the same for every environment: `make image ENV=`.
FROM serve AS model
COPY build/model bundles
ENV SERVING_BUNDLES=/app/bundles
