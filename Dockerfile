# The gateway, from this source tree: docker build -t runrails-gateway .
# How it is run is in integrations/runrails_gateway/README.md. There is no secret in it, and none is needed to build it.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
ARG EXTRAS=gateway,aws
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY guardrails guardrails
COPY integrations integrations
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
 && python -m venv /app \
 && /app/bin/python -m pip install --no-cache-dir "$(echo /wheels/runrails-*.whl)[${EXTRAS}]"

FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 runrails \
 && useradd --uid 10001 --gid runrails --no-create-home --home-dir /data --shell /usr/sbin/nologin runrails \
 && install --directory --owner=runrails --group=runrails --mode=0700 /data
COPY --from=build /app /app
# Ledger, keys and the secrets that a machine makes for itself; with a shared ledger nothing is written there.
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/data XDG_DATA_HOME=/data
VOLUME ["/data"]
WORKDIR /data
USER 10001:10001
EXPOSE 4700
STOPSIGNAL SIGTERM
# Without site-packages (-S), so that limits in the environment, which are callers', guard nothing here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-S", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:4700/healthz', timeout=2)"]
ENTRYPOINT ["runrails", "serve"]
CMD ["--host", "0.0.0.0", "--port", "4700"]
