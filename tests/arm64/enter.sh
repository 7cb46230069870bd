#!/bin/sh
# Runs a command in an arm64 root under qemu, and whatever that command starts. For the time of this, in namespaces of its
# own, the kernel gives arm64's programs to qemu: nothing of this machine is changed. Needs root, and Linux 6.7 or newer.
# /sys stays out of it: with it, onnxruntime crashes under qemu.
# Usage: enter.sh ROOT COMMAND...
set -eu
if [ -z "${EDGEFLOCK_ENTERED:-}" ]; then
    EDGEFLOCK_ENTERED=yes exec unshare --user --map-root-user --mount --pid --fork --kill-child sh "$0" "$@"
fi
root=$1
shift
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
mount -t proc none "$root/proc"
exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin QEMU_CPU="${QEMU_CPU:-cortex-a53}" chroot "$root" "$@"
