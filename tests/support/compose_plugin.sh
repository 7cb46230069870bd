#!/bin/sh
# Docker's compose plugin, version 2, as Debian 13 has it, for a Debian that has none: into the folder FOLDER/cli-plugins.
# Nothing is installed. usage: compose_plugin.sh FOLDER MIRROR
set -eu
folder=$1 mirror=$2
[ -x "$folder/cli-plugins/docker-compose" ] && exit 0
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/cli-plugins"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror trixie main" > "$folder/sources.list"
ask() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder" "$@"
}
ask update
cd "$folder/archives"
ask download docker-compose
dpkg-deb --fsys-tarfile docker-compose_*.deb | tar --extract --wildcards --transform 's#.*/##' '*/cli-plugins/docker-compose'
mv docker-compose "$folder/cli-plugins/"
