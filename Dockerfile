# Two images: `service` serves and can't train; `training` serves, retrains and has the whole command line.
#   docker build --target service  -t kdiffe:service .
#   docker build --target training -t kdiffe:training --build-arg TORCH_INDEX=… .   (README: machines without a GPU)
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PATH=/opt/kdiffe/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/kdiffe
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY kdiffe_client ./kdiffe_client
COPY model_store ./model_store
COPY service ./service
COPY training ./training

FROM build AS build-service
RUN pip install --constraint constraints.txt ".[service,tracing,cpu]"

FROM build AS build-training
ARG TORCH_INDEX=
# torch alone: an index of torch holds only some versions of what torch needs.
RUN if [ -n "$TORCH_INDEX" ]; then pip install --constraint constraints.txt --no-deps -i "$TORCH_INDEX" torch; fi \
    && pip install --constraint constraints.txt ".[service,tracing,training,parquet,cpu]"

FROM python:${PYTHON} AS runtime
# The models and the state live in /data, which is no part of the package: a volume there hides nothing.
ENV PATH=/opt/kdiffe/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/kdiffe \
    KDIFFE_STORE=/data/models \
    KDIFFE_STATE=sqlite:////data/state/state.sqlite3 \
    KDIFFE_HOST=0.0.0.0 \
    KDIFFE_PORT=8000
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin kdiffe \
    && mkdir -p /data/models /data/state /var/cache/kdiffe \
    && chown -R kdiffe:kdiffe /data /var/cache/kdiffe
WORKDIR /data
USER 10001
VOLUME /data
EXPOSE 8000
# Of a service. A trainer listens nowhere: docs/observability.md says how one is started with a check of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['KDIFFE_PORT'] + '/health/ready', timeout=4)"]
STOPSIGNAL SIGINT
CMD ["kdiffe", "serve"]

FROM runtime AS service
COPY --from=build-service /opt/kdiffe /opt/kdiffe

FROM runtime AS training
COPY --from=build-training /opt/kdiffe /opt/kdiffe
