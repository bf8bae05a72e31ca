# One image for every process of ours; docker-compose.yml gives each its command.
#   docker build .                                               the image
#   docker build --target bill-of-materials --output build/ .    what is in it: build/sbom.cdx.json (CycloneDX)
# The digest is the one that many public projects name for this tag; it was not asked of a registry here.
ARG PYTHON=python:3.11.11-slim-bookworm@sha256:081075da77b2b55c23c088251026fb69a7b2bf92471e491ff5fd75c192fd38e5

# -- dependencies: they change seldom, and their layer is by far the largest --
FROM ${PYTHON} AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /opt/liq_pipeline
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Editable, because the program finds sql/ beside its package: the link stands for the folder that comes later.
RUN mkdir liq_pipeline && touch liq_pipeline/__init__.py \
    && /opt/venv/bin/pip install --constraint constraints.txt --editable ".[cluster]" \
    && rm -r liq_pipeline

# -- what is in it, read from the environment that the image gets --
FROM ${PYTHON} AS inventory
COPY --from=environment /opt/venv /opt/venv
RUN pip install --disable-pip-version-check --no-cache-dir cyclonedx-bom==7.3.0 \
    && cyclonedx-py environment --output-reproducible --output-file /sbom.cdx.json /opt/venv

FROM scratch AS bill-of-materials
COPY --from=inventory /sbom.cdx.json /

# -- what runs: none of the tools of the stages above --
FROM ${PYTHON} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/liq_pipeline
# Nothing here needs root. The volumes take over the owner of these folders when they are first mounted.
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/liq_pipeline --shell /usr/sbin/nologin liq \
    && mkdir -p /var/lib/liq_pipeline /var/lib/dagster /run/liq \
    && chown liq: /var/lib/liq_pipeline /var/lib/dagster /run/liq \
    && chmod 700 /run/liq
COPY --from=environment /opt/venv /opt/venv
COPY --from=inventory /sbom.cdx.json ./
COPY pyproject.toml workspace.yaml LICENSE ./
COPY liq_pipeline liq_pipeline
COPY sql sql
COPY dagster_home ./dagster_home
# By number, so that whoever starts it can see that it is not root.
USER 10001:10001

CMD ["liq", "--help"]
