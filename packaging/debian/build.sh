#!/bin/sh
# Debian packages of agent and coordinator: run in the checkout by `make deb`. Needs debhelper and the network; no root and
# no emulation, whatever the processor: everything that edgeflock needs is a wheel.
# Usage: build.sh FOLDER PYTHON [RELEASE [ARCH]]      without the last two, those of this machine
set -eu
mkdir -p "$1"
output=$(cd "$1" && pwd)
python=$2
release=${3:-$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")}
arch=${4:-$(dpkg --print-architecture)}

case $release in
bookworm) debian=12 version=3.11 ;;
trixie) debian=13 version=3.13 ;;
*)
    echo "release $release: packages are made for bookworm and trixie; name one: make deb RELEASE=bookworm" >&2
    exit 2
    ;;
esac
case $arch in
amd64) machine=x86_64 ;;
arm64) machine=aarch64 ;;
*)
    echo "arch $arch: onnxruntime has wheels for amd64 and arm64 alone; name one: make deb ARCH=arm64" >&2
    exit 2
    ;;
esac

work=$output/$release-$arch
rm -rf "$work"
mkdir -p "$work/source"
cp -r packaging/debian "$work/source/debian"
cp -r LICENSE CHANGELOG.md systemd "$work/source"
mkdir -p "$work/source/completions" "$work/source/models/digits"
cp -r models/digits/bundle "$work/source/models/digits"
for program in edge-agent edgeflock-helper broker-coordinator; do
    cp "completions/$program.bash" "$work/source/completions/$program"
done

# The oldest glibc that wheels are made for, to that of Bookworm.
platforms="--platform manylinux2014_$machine"
for minor in $(seq 17 36); do
    platforms="$platforms --platform manylinux_2_${minor}_$machine"
done
quiet="--quiet --disable-pip-version-check"
# shellcheck disable=SC2086 # the options are words
"$python" -m pip wheel $quiet --no-deps --wheel-dir "$work" .
wheel=$(echo "$work"/*.whl)

environment() { # package, extras
    # shellcheck disable=SC2086
    "$python" -m pip install $quiet --no-warn-conflicts --no-compile --only-binary=:all: --implementation cp \
        --python-version "$version" $platforms --target "$work/source/environments/$1" "$wheel[$2]"
}
# Nobody can add an extra to a package, so each has those that its program can use.
environment edgeflock-agent pictures
environment edgeflock-coordinator coordinator,dashboard,postgresql,qr

# As Debian orders versions: 1.0~rc1 comes before 1.0.
upstream=$(basename "$wheel" | cut --delimiter=- --fields=2 | sed -E 's/\.?(a|b|rc|dev)([0-9])/~\1\2/g')
seconds=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
cat >"$work/source/debian/changelog" <<CHANGELOG
edgeflock ($upstream-1+deb$debian) $release; urgency=medium

  * This release: /usr/share/doc/edgeflock-*/changelog.gz.

 -- $(sed -n 's/^Maintainer: //p' packaging/debian/control)  $(date --utc --rfc-email --date="@$seconds")
CHANGELOG

cd "$work/source"
# Its build dependencies are checked for the processor that it is for, where nothing runs.
PYTHON_VERSION=$version dpkg-buildpackage --build=binary --no-check-builddeps --no-sign --host-arch="$arch" \
    >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; exit 1; }
for deb in "$work"/*.deb; do
    mv "$deb" "$output"
    echo "$output/${deb##*/}"
done
rm -rf "$work"
