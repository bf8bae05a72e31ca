# One image for every process of ours; docker-compose.yml gives each its command.
FROM python:3.11.11-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/liq_pipeline

# The dependencies first: they change seldom, and their layer is by far the largest.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir liq_pipeline && touch liq_pipeline/__init__.py \
    && pip install --constraint constraints.txt --editable ".[cluster]" \
    && rm -r liq_pipeline

COPY liq_pipeline liq_pipeline
COPY sql sql
COPY dagster_home ./dagster_home
COPY workspace.yaml ./
RUN pip install --constraint constraints.txt --no-deps --editable ".[cluster]"

# Nothing here needs root. The volumes take over the owner of these folders when they are first mounted.
RUN useradd --system --uid 10001 --home-dir /var/lib/liq_pipeline --shell /usr/sbin/nologin liq \
    && mkdir -p /var/lib/liq_pipeline /var/lib/dagster /run/liq \
    && chown liq: /var/lib/liq_pipeline /var/lib/dagster /run/liq \
    && chmod 700 /run/liq
USER liq

CMD ["liq", "--help"]
