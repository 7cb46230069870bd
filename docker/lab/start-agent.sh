#!/bin/sh
# Starts one agent of the lab: named after its container, with a key of its own, pinning the lab's coordinator.
set -eu
: "${COORDINATOR_KEY:?start with COORDINATOR_KEY=... (64 hex digits, printed by: broker-coordinator keygen)}"
cd /var/lib/edge-agent
[ -f agent.key ] || edge-agent keygen agent.key
sed -e "s/^device = .*/device = \"$(hostname)\"/" \
    -e "s/^coordinator_key = .*/coordinator_key = \"$COORDINATOR_KEY\"/" /lab/agent.toml > agent.toml
exec edge-agent run --config agent.toml
