#!/bin/sh
# Starts one agent of the lab, with a key of its own, pinning the lab's coordinator. It is named after its first container:
# name and key stay together in the volume, whatever the host name of a later container.
set -eu
: "${COORDINATOR_KEY:?start with COORDINATOR_KEY=... (64 hex digits, printed by: broker-coordinator keygen)}"
cd /var/lib/edge-agent
[ -f device-name ] || hostname > device-name
[ -f agent.key ] || edge-agent keygen agent.key
sed -e "s/^device = .*/device = \"$(cat device-name)\"/" \
    -e "s/^coordinator_key = .*/coordinator_key = \"$COORDINATOR_KEY\"/" /lab/agent.toml > agent.toml
exec edge-agent run --config agent.toml
