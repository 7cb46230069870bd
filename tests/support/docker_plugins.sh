#!/bin/sh
# Docker's plugins compose (version 2) and buildx as Debian 13 has them, for a Debian that has none: into the folder
# FOLDER/cli-plugins. Nothing is installed. usage: docker_plugins.sh FOLDER MIRROR
set -eu
folder=$1 mirror=$2
[ -x "$folder/cli-plugins/docker-compose" ] && [ -x "$folder/cli-plugins/docker-buildx" ] && exit 0
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/cli-plugins"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror trixie main" > "$folder/sources.list"
ask() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder" "$@"
}
ask update
cd "$folder/archives"
for plugin in docker-compose docker-buildx; do
    ask download "$plugin"
    dpkg-deb --fsys-tarfile "$plugin"_*.deb | tar --extract --wildcards --transform 's#.*/##' "*/cli-plugins/$plugin"
    mv "$plugin" "$folder/cli-plugins/"
done
