#!/bin/sh
# Runs a command in an arm64 root under qemu, and whatever that command starts. Where the kernel does not give arm64's
# programs to qemu already, it does so in namespaces of this command's own, and nothing of this machine is changed; that
# needs Linux 6.7. Needs root. /sys stays out of it: with it, onnxruntime crashes under qemu.
# Usage: enter.sh ROOT COMMAND...
set -eu
formats=/proc/sys/fs/binfmt_misc
if [ -z "${EDGEFLOCK_ENTERED:-}" ]; then
    user="--user --map-root-user"
    [ ! -e "$formats/qemu-aarch64" ] || user=""
    # shellcheck disable=SC2086 # the options are words
    EDGEFLOCK_ENTERED=yes exec unshare $user --mount --pid --fork --kill-child sh "$0" "$@"
fi
root=$1
shift
if [ ! -e "$formats/qemu-aarch64" ]; then
    mount -t binfmt_misc none "$formats"
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$formats/register"
fi
mount -t proc none "$root/proc"
exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin QEMU_CPU="${QEMU_CPU:-cortex-a53}" chroot "$root" "$@"
