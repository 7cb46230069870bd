# The agent. Build from the repository's root: docker build -f docker/agent.Dockerfile -t edgeflock-agent .
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
 && /opt/edgeflock/bin/pip install --no-cache-dir --only-binary :all: . \
 && /opt/edgeflock/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
# Numbers of our own, so that volumes keep their owner when the image is built again.
RUN groupadd --system --gid 990 edge-samples \
 && useradd --system --uid 990 --gid edge-samples --no-create-home --home-dir /var/lib/edge-agent edge-agent \
 && install -d -o edge-agent -g edge-samples -m 0700 /var/lib/edge-agent \
 && install -d -o edge-agent -g edge-samples -m 0750 /run/edge-agent
COPY --from=build /opt/edgeflock /opt/edgeflock
ENV PATH=/opt/edgeflock/bin:$PATH
USER edge-agent
WORKDIR /var/lib/edge-agent
VOLUME /var/lib/edge-agent
ENTRYPOINT ["edge-agent"]
CMD ["run", "--config", "/etc/edge-agent/agent.toml"]
