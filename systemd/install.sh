#!/bin/sh
# Installs one part of edgeflock on Debian, Raspberry Pi OS or Ubuntu from a checkout: packages, program, service. Run it as
# root, again after an update of the checkout.
#
#   install.sh coordinator       broker-coordinator and Mosquitto; then: broker-coordinator setup
#   install.sh device            edge-agent; then: edge-agent join
#   install.sh helper            edgeflock-helper, which computes for weaker devices; then: edgeflock-helper join
set -eu
cd "$(dirname "$0")/.."
program=/opt/edgeflock

packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

python_program() { # command, what pip installs
    packages python3-venv
    [ -x "$program/bin/pip" ] || python3 -m venv --clear "$program"
    "$program/bin/pip" install --upgrade "$2"
    "$program/bin/$1" install-service
}

case "${1:-}:$#" in
coordinator:1)
    packages mosquitto openssl
    python_program broker-coordinator '.[coordinator,dashboard,qr]'
    ;;
device:1)
    python_program edge-agent .
    ;;
helper:1)
    python_program edgeflock-helper .
    ;;
*)
    sed -n '5,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
