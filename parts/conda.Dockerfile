# CONDA: Python and what environment.yml takes from conda-forge; what it takes by pip comes below, by
# the lock. The secret condarc is a .condarc with channels and certificates of your own.
FROM ${BASE} AS conda
# hadolint ignore=DL3002
USER 0
COPY environment.yml /tmp/
RUN --mount=type=secret,id=condarc,target=/etc/conda/.condarc \
    sed '/^ *- pip:/,$d' /tmp/environment.yml > /tmp/conda.yml \
    && micromamba install --yes --quiet --name base --file /tmp/conda.yml \
    && micromamba clean --all --yes --quiet
ENV PATH=/opt/conda/bin:$PATH
