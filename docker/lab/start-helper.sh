#!/bin/sh
# Starts the lab's helper: with a key of its own, pinning the lab's coordinator. Key and name are kept as an agent's are;
# the name tells it from the agents.
set -eu
: "${COORDINATOR_KEY:?start with COORDINATOR_KEY=... (64 hex digits, printed by: broker-coordinator keygen)}"
cd "${STATE_FOLDER:-/var/lib/edgeflock-helper}"
[ -s device-name ] || echo "helper-$(hostname)" > device-name
[ -f agent.key ] || edgeflock-helper keygen agent.key
sed -e "s/^device = .*/device = \"$(cat device-name)\"/" \
    -e "s/^coordinator_key = .*/coordinator_key = \"$COORDINATOR_KEY\"/" "${LAB:-/lab}/helper.toml" > helper.toml
exec edgeflock-helper run --config helper.toml
