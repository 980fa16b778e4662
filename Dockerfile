# The worker. Runs as a numeric user on a read-only root; nothing in it needs a shell at run time.
# Pinned by tag. For a release pin the digest as well: `docker buildx imagetools inspect` shows it
# (it was not available where this file was written, and a guessed digest is worse than none).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/penstock
# The dependencies first: they change less often than the code.
COPY requirements.lock ./
RUN /opt/penstock/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY workers ./workers
COPY topics ./topics
# The demo's tickets, prompts, schema and rules travel in the wheel.
COPY config ./config
# The lock holds the build back end too: nothing unhashed takes part.
RUN /opt/penstock/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /dist .
RUN /opt/penstock/bin/pip install --no-deps --no-index --find-links /dist penstock
RUN /opt/penstock/bin/pip uninstall --yes hatchling editables pip setuptools

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /etc/penstock
USER 10001:10001
# Health: compose and Kubernetes ask /livez and /readyz themselves.
HEALTHCHECK NONE
ENTRYPOINT ["penstock"]
