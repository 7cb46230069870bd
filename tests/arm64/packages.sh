#!/bin/sh
# The arm64 Debian packages, unpacked into the root that prepare.sh has made: both commands run there, and what they load
# loads. Usage: packages.sh FOLDER PYTHON
set -eu
folder=$1 python=$2
root=$folder/root

rm -rf "$folder/packages"
sh packaging/debian/build.sh "$folder/packages" "$python" bookworm arm64
emulated() { # package, what its interpreter is given
    interpreter=/usr/lib/$1/bin/python
    shift
    chroot "$root" /usr/bin/qemu-aarch64-static -0 "$interpreter" "$interpreter" -I "$@"
}
for package in edgeflock-agent edgeflock-coordinator; do
    rm -rf "$root/usr/lib/$package"
    dpkg-deb --fsys-tarfile "$folder/packages/${package}"_*.deb |
        tar --extract --directory="$root" --keep-directory-symlink
done
emulated edgeflock-agent /usr/bin/edge-agent --version
emulated edgeflock-agent -c 'import cbor2, nacl.signing, numpy, onnxruntime, PIL.Image, psutil, zstandard'
emulated edgeflock-coordinator /usr/bin/broker-coordinator --version
emulated edgeflock-coordinator -c 'import numpy, onnxruntime, psycopg, segno, sqlalchemy'
