#!/bin/sh
# Starts one agent of the lab: named after its first container, with a key of its own, pinning the lab's coordinator.
# Key and name belong together at the coordinator, so both are kept in the volume: a container that is made again has
# another host name. An empty file of the name is what a full disk or a power cut has left: it is written again.
set -eu
: "${COORDINATOR_KEY:?start with COORDINATOR_KEY=... (64 hex digits, printed by: broker-coordinator keygen)}"
cd "${STATE_FOLDER:-/var/lib/edge-agent}"
[ -s device-name ] || hostname > device-name
[ -f agent.key ] || edge-agent keygen agent.key
sed -e "s/^device = .*/device = \"$(cat device-name)\"/" \
    -e "s/^coordinator_key = .*/coordinator_key = \"$COORDINATOR_KEY\"/" "${LAB:-/lab}/agent.toml" > agent.toml
exec edge-agent run --config agent.toml
