#!/bin/sh
# Installs edge-agent and has it join its fleet. edgeflock-first-boot.service runs it until it has succeeded once.
# What `edgeflock flash` was told is in edgeflock/settings.sh beside it, on the boot partition.
set -eu
root=${EDGEFLOCK_ROOT:-}
card=$root/boot/firmware/edgeflock
. "$card/settings.sh"

install_wheels() {
    rm -rf "$program" # half of one, where the power failed
    if [ "$offline" = yes ]; then
        python3 -m venv --without-pip "$program"
        set -- "$card"/wheels/pip-*.whl
        "$program/bin/python" "$1/pip" install --no-index --find-links "$card/wheels" "$package"
    else
        python3 -c 'import ensurepip' 2>/dev/null || { apt-get update; apt-get install --yes python3-venv; }
        python3 -m venv "$program"
        "$program/bin/python" -m pip install --only-binary :all: --find-links "$card/wheels" "$package"
    fi
    sync # before the mark: a power cut may lose what was written last
    touch "$program/installed"
}

install_debian_package() {
    dpkg --configure --pending # half of one, where the power failed
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$card/wheels/$package"
}

case $package in
*.deb)
    program=$root/usr/lib/edgeflock-agent
    status=$(dpkg-query --show --showformat '${db:Status-Status}' edgeflock-agent 2>/dev/null) || status=none
    [ "$status" = installed ] || install_debian_package
    ;;
*)
    program=$root/opt/edge-agent
    [ -e "$program/installed" ] || install_wheels
    mkdir -p "$root/usr/local/bin"
    ln -sf "$program/bin/edge-agent" "$root/usr/local/bin/edge-agent"
    ;;
esac

if [ -e "$card/invitation" ]; then
    "$program/bin/edge-agent" join --profile "$profile" -- "$(cat "$card/invitation")"
    rm -f "$card/invitation" # it serves once
fi
rm -f "$root/etc/systemd/system/multi-user.target.wants/edgeflock-first-boot.service"
