# The four images: gateway, agent, operator, worker. docs/images.md has their sizes and how to build them.

# Debian 12 with Python 3.11 or later, apt's or its own. Pin it: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=docker.io/library/python:3.11-slim-bookworm
# cuda, or cpu for machines without a GPU: 4 GB less, the same results.
ARG ACCELERATOR=cuda


FROM ${BASE} AS tools
# A registry behind a private CA: mount its certificate and name it here. Neither stays in an image. Nor does what may be
# mounted on /var/cache/uv: packages that uv downloaded before.
ARG SSL_CERT_FILE
ARG PIP_CERT
ENV PATH=/opt/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
RUN python3 -c 'import ensurepip' 2>/dev/null \
    || { apt-get update -qq && apt-get install -qq --no-install-recommends python3-venv; }
COPY locks/uv.txt locks/image.txt /locks/
COPY services/images/uv /opt/tools/
RUN python3 -m venv /opt/tools \
    && pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --requirement /locks/uv.txt \
    && /opt/tools/uv pip install --python /opt/tools/bin/python --require-hashes --requirement /locks/image.txt \
    && printf %s "${SSL_CERT_FILE}" >/opt/tools/authority
COPY services/images/environment /images/


# The package, in the place where the environment will be.
FROM tools AS package
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY services services
COPY operators operators
RUN /opt/tools/uv build --wheel --no-build-isolation --python /opt/tools/bin/python --out-dir /wheel \
    && /opt/tools/uv venv --python /opt/tools/bin/python /opt/koinon \
    && /opt/tools/uv pip install --offline --no-deps --python /opt/koinon/bin/python /wheel/*.whl \
    && mkdir -p /package/opt/koinon/bin \
    && mv /opt/koinon/lib /package/opt/koinon/ \
    && mv /opt/koinon/bin/koinon /package/opt/koinon/bin/

FROM package AS package-koinon
RUN rm -r /package/opt/koinon/lib/python3*/site-packages/koinon_operator

FROM package AS package-operator
RUN rm /package/opt/koinon/bin/koinon \
    && cd /package/opt/koinon/lib/python3*/site-packages/koinon \
    && find . -mindepth 1 -maxdepth 1 ! -name domain ! -name __pycache__ ! -name __init__.py -exec rm -r {} + \
    && find __pycache__ -type f ! -name '__init__.*' -delete


# What a Python needs to run and nothing else: no shell, no package manager.
FROM tools AS system
COPY services/images/rootfs.py /images/
RUN python3 /images/rootfs.py /rootfs

FROM scratch AS runtime
COPY --from=system /rootfs /
ENV PATH=/opt/koinon/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
WORKDIR /tmp


FROM tools AS gateway-environment
COPY locks/gateway.txt /locks/
RUN /images/environment /locks/gateway.txt

FROM gateway-environment AS gateway-parts
COPY --from=system /rootfs/var/lib/dpkg /dpkg
COPY services/images/sbom.py pyproject.toml README.md /images/
RUN python3 /images/sbom.py gateway /opt/koinon /dpkg /parts/usr/share/sbom/koinon.cdx.json

FROM runtime AS gateway
COPY --from=gateway-environment /opt/koinon /opt/koinon
COPY --from=gateway-parts /parts /
COPY --from=package-koinon /package /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://koinon.dev
LABEL org.opencontainers.image.title="koinon-gateway" \
      org.opencontainers.image.description="Koinon's hub: accepts runs, pairs hospitals, adds up what they send sealed" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.koinon.sbom="/usr/share/sbom/koinon.cdx.json"
ENTRYPOINT ["koinon", "hub", "serve"]


FROM tools AS agent-environment
COPY locks/agent.txt /locks/
RUN /images/environment /locks/agent.txt

FROM agent-environment AS agent-parts
COPY --from=system /rootfs/var/lib/dpkg /dpkg
COPY services/images/sbom.py pyproject.toml README.md /images/
RUN python3 /images/sbom.py agent /opt/koinon /dpkg /parts/usr/share/sbom/koinon.cdx.json

FROM runtime AS agent
COPY --from=agent-environment /opt/koinon /opt/koinon
COPY --from=agent-parts /parts /
COPY --from=package-koinon /package /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://koinon.dev
LABEL org.opencontainers.image.title="koinon-agent" \
      org.opencontainers.image.description="Koinon's agent of a hospital: keys, consents and the way to the hub" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.koinon.sbom="/usr/share/sbom/koinon.cdx.json"
ENTRYPOINT ["koinon", "site", "serve"]


FROM tools AS operator-environment
COPY locks/operator.txt /locks/
RUN /images/environment /locks/operator.txt

FROM operator-environment AS operator-parts
COPY --from=system /rootfs/var/lib/dpkg /dpkg
COPY services/images/sbom.py pyproject.toml README.md /images/
RUN python3 /images/sbom.py operator /opt/koinon /dpkg /parts/usr/share/sbom/koinon.cdx.json

FROM runtime AS operator
COPY --from=operator-environment /opt/koinon /opt/koinon
COPY --from=operator-parts /parts /
COPY --from=package-operator /package /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://koinon.dev
LABEL org.opencontainers.image.title="koinon-operator" \
      org.opencontainers.image.description="Koinon's operator of a hospital: a Ray cluster for each project it grants" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.koinon.sbom="/usr/share/sbom/koinon.cdx.json"
ENTRYPOINT ["python", "-m", "koinon_operator"]


# KubeRay's commands and probes call bash and wget, and a hospital may build its own worker on this one.
FROM ${BASE} AS worker-system
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends bash ca-certificates procps wget \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt /var/cache/ldconfig/aux-cache \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
    && echo 'koinon:x:65532:65532:koinon:/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'koinon:x:65532:' >>/etc/group

# Installed in place: copied from another stage, gigabytes would be written twice at each build. What a mount holds is not
# looked at when a builder asks whether a step has been done; what is copied is.
FROM worker-system AS worker-environment
ARG ACCELERATOR
COPY locks/worker.txt services/images/environment /tmp/build/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /tmp/build/environment /tmp/build/worker.txt "${ACCELERATOR}" \
    && rm -r /tmp/build

FROM tools AS worker-stubs
ARG ACCELERATOR
RUN test "${ACCELERATOR}" != cpu \
    || { apt-get update -qq && apt-get install -qq --no-install-recommends gcc libc6-dev; }
COPY locks/worker.txt services/images/cudastub.py services/images/environment /images/
RUN --mount=type=bind,from=worker-environment,source=/opt/koinon,target=/opt/koinon \
    torch=$(echo /opt/koinon/lib/python3*/site-packages/torch) && mkdir -p "/stubs$torch/lib" \
    && { test "${ACCELERATOR}" != cpu || python3 /images/cudastub.py "$torch" "/stubs$torch/lib"; }

FROM tools AS worker-parts
ARG ACCELERATOR
COPY --from=worker-system /var/lib/dpkg /dpkg
COPY locks/worker.txt services/images/sbom.py services/images/environment pyproject.toml README.md /images/
RUN --mount=type=bind,from=worker-environment,source=/opt/koinon,target=/opt/koinon \
    echo "${ACCELERATOR}" \
    && python3 /images/sbom.py worker /opt/koinon /dpkg /parts/usr/share/sbom/koinon.cdx.json

FROM worker-environment AS worker
ENV PATH=/opt/koinon/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 65532:65532
WORKDIR /tmp
COPY --from=worker-stubs /stubs /
COPY --from=worker-parts /parts /
COPY --from=package-koinon /package /
ARG ACCELERATOR
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=https://koinon.dev
LABEL org.opencontainers.image.title="koinon-worker" \
      org.opencontainers.image.description="Koinon's Ray and torch, where a hospital's records are trained on" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      dev.koinon.accelerator="${ACCELERATOR}" \
      dev.koinon.sbom="/usr/share/sbom/koinon.cdx.json"
