#!/bin/sh
# Installs one part of edgeflock on Debian, Raspberry Pi OS or Ubuntu: packages, program, account and unit. Run it as root
# in a checkout, again after an update of the checkout. It starts nothing of ours.
#
#   install.sh coordinator       broker-coordinator and Mosquitto; then: broker-coordinator setup
#   install.sh device            edge-agent; then: edge-agent join
set -eu
cd "$(dirname "$0")/.."
program=/opt/edgeflock

packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

unit() { # name
    install -m 0644 "systemd/$1.service" /etc/systemd/system/
    systemctl daemon-reload
}

python_program() { # command, what pip installs
    packages python3-venv
    [ -x "$program/bin/pip" ] || python3 -m venv --clear "$program"
    "$program/bin/pip" install --upgrade "$2"
    ln -sf "$program/bin/$1" "/usr/local/bin/$1"
    install -D -m 0644 "completions/$1.bash" "/usr/local/share/bash-completion/completions/$1"
    install -D -m 0644 systemd/edgeflock.sysusers.conf /usr/lib/sysusers.d/edgeflock.conf
    systemd-sysusers
    unit "$1"
}

case "${1:-}:$#" in
coordinator:1)
    packages mosquitto openssl
    unit mosquitto-edgeflock
    python_program broker-coordinator '.[coordinator,qr]'
    ;;
device:1)
    python_program edge-agent .
    ;;
*)
    sed -n '5,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
