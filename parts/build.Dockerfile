# BUILD: packages by the lock with its hashes, into /packages; only wheels, so nothing is compiled.
# Of the machine that builds: HTTP_PROXY and its like, and the secrets index (the URL of an index),
# pip_conf and ca (certificates), which leave no trace in a layer.
FROM {{ docker_base_facts[docker_base].build }} AS build
# hadolint ignore=DL3002
USER 0
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
COPY --chmod=0755 deploy/pip-install /usr/local/bin/pip-install

FROM build AS serve-packages
COPY locks/serve.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=ca \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip-install --require-hashes --no-deps --requirement serve.txt

FROM build AS job-packages
COPY locks/job.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=secret,id=index --mount=type=secret,id=ca \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    pip-install --require-hashes --no-deps --requirement job.txt

FROM build AS code
COPY src src
RUN python3 -m compileall -q src

# Where a container may write. Group 0 may too: some clusters choose a user id of their own.
FROM build AS folders
RUN mkdir -p /folders/var/bundles /folders/reports /folders/data/snapshots \
    && chmod -R g=u /folders
