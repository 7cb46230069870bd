# The coordinator. Build from the repository's root:
# docker build -f docker/coordinator.Dockerfile -t edgeflock-coordinator .
# Any base with python3 (3.11 to 3.13) and its venv module will do.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY fleet_protocol fleet_protocol
COPY fleet_host fleet_host
COPY bundle_runtime bundle_runtime
COPY edge_agent edge_agent
COPY broker_coordinator broker_coordinator
COPY workbench workbench
COPY models models
COPY firmware_profiles firmware_profiles
COPY systemd systemd
COPY completions completions
# Every dependency has a wheel, so there is no compiler to leave behind; pip goes as well.
RUN python3 -m venv /opt/edgeflock \
 && /opt/edgeflock/bin/pip install --no-cache-dir --only-binary :all: '.[coordinator]' \
 && /opt/edgeflock/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
# Numbers of our own, so that volumes keep their owner when the image is built again.
RUN groupadd --system --gid 991 broker-coordinator \
 && useradd --system --uid 991 --gid broker-coordinator --no-create-home \
    --home-dir /var/lib/broker-coordinator broker-coordinator \
 && install -d -o broker-coordinator -g broker-coordinator -m 0700 /var/lib/broker-coordinator
COPY --from=build /opt/edgeflock /opt/edgeflock
ENV PATH=/opt/edgeflock/bin:$PATH
USER broker-coordinator
WORKDIR /var/lib/broker-coordinator
VOLUME /var/lib/broker-coordinator
ENTRYPOINT ["broker-coordinator"]
CMD ["run", "--config", "/etc/broker-coordinator/coordinator.toml"]
