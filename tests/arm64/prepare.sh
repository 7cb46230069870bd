#!/bin/sh
# An arm64 Debian root with the agent's aarch64 wheels, in the folder FOLDER/root. Needs root, debootstrap, no binfmt:
# the packages are unpacked but not configured, which is all that a Python interpreter needs.
# Usage: prepare.sh FOLDER PYTHON
set -eu
folder=$1 python=$2
root=$folder/root
suite=bookworm version=3.11
packages=python3-minimal,python$version-minimal,libpython$version-stdlib,ca-certificates

if [ "$(id -u)" != 0 ]; then
    echo "making and entering a root filesystem needs root; run: sudo make test-arm64" >&2
    exit 1
fi

if [ "$(cat "$folder/unpacked" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$root"
    mkdir -p "$folder"
    debootstrap --arch=arm64 --foreign --variant=minbase --include="$packages" "$suite" "$root" >"$folder/debootstrap.log"
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar --extract --directory="$root" --keep-directory-symlink
    done
    [ ! -L "$root/proc" ] || rm "$root/proc" # where debootstrap may not mount one, it makes a link that ends nowhere
    mkdir -p "$root/proc" "$root/dev" "$root/tmp"
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
    echo "root:x:0:0:root:/root:/bin/sh" >"$root/etc/passwd"
    [ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
    [ -e "$root/dev/urandom" ] || mknod -m 666 "$root/dev/urandom" c 1 9
    echo "$packages" >"$folder/unpacked"
fi
cp "$(command -v qemu-aarch64-static)" "$root/usr/bin/qemu-aarch64-static"

# The project's own list, resolved for the device instead of for this machine.
"$python" - >"$folder/requirements.txt" <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["dependencies"]))
PYTHON
if ! cmp -s "$folder/requirements.txt" "$folder/installed.txt"; then
    rm -rf "$root/opt/wheels"
    "$python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --target "$root/opt/wheels" \
        --only-binary=:all: --python-version "$version" --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_26_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        --requirement "$folder/requirements.txt"
    cp "$folder/requirements.txt" "$folder/installed.txt"
fi

rm -rf "$root/opt/edgeflock"
mkdir -p "$root/opt/edgeflock"
cp -r fleet_protocol fleet_host bundle_runtime edge_agent "$root/opt/edgeflock"
