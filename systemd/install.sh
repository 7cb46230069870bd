#!/bin/sh
# Installs one part of edgeflock on Debian, Raspberry Pi OS or Ubuntu from a checkout: packages, program, service. Run it as
# root, again after an update of the checkout.
#
#   install.sh broker DIR        Mosquitto of its own, with the certificates that certificates.sh wrote into DIR
#   install.sh coordinator       broker-coordinator; then: broker-coordinator setup
#   install.sh device            edge-agent; then: edge-agent setup
set -eu
here=$(pwd)
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
broker:2)
    etc=/etc/mosquitto-edgeflock
    certificates=$(cd "$here" && cd "$2" && pwd)
    for file in ca.crt broker.crt broker.key; do
        [ -r "$certificates/$file" ] || { echo "$certificates/$file: missing; make it with: systemd/mosquitto/certificates.sh" >&2; exit 1; }
    done
    packages mosquitto
    install -d -o mosquitto -m 0700 "$etc"
    install -o mosquitto -m 0400 "$certificates/ca.crt" "$certificates/broker.crt" "$certificates/broker.key" \
        systemd/mosquitto/acl "$etc"
    [ -e "$etc/mosquitto.conf" ] || install -o mosquitto -m 0400 systemd/mosquitto/mosquitto.conf "$etc"
    install -m 0644 systemd/mosquitto-edgeflock.service /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable mosquitto-edgeflock
    systemctl restart mosquitto-edgeflock
    ;;
coordinator:1)
    python_program broker-coordinator '.[coordinator]'
    ;;
device:1)
    python_program edge-agent .
    ;;
*)
    sed -n '5,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
