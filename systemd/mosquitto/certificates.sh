#!/bin/sh
# Certificates for a fleet's broker and for whoever connects to it. Needs OpenSSL 1.1.1 or newer.
#
#   certificates.sh server DIR HOST            what a new fleet's server needs: the first two below, and broker-coordinator's
#   certificates.sh authority DIR              ca.crt, and ca.key, which stays where it is made
#   certificates.sh broker DIR HOST            broker.crt and broker.key, for the name that devices connect to
#   certificates.sh client DIR NAME            NAME.crt and NAME.key; NAME is a device's name, or broker-coordinator
#
# Ten years: devices are hard to reach, and what they say counts by its signature, not by its connection.
set -eu
umask 077

new_key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
days=3650

issue() { # file, common name, extensions: Python 3.13 refuses certificates without the key identifiers and usages
    # shellcheck disable=SC2086 # the options are words
    openssl req -new $new_key -subj "/CN=$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf '%s\n' basicConstraints=critical,CA:FALSE subjectKeyIdentifier=hash authorityKeyIdentifier=keyid \
        keyUsage=critical,digitalSignature "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -sha256 \
        -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
    chmod 644 "$1.crt"
}

case "${1:-}:$#" in
server:3)
    "$0" authority "$2"
    "$0" broker "$2" "$3"
    "$0" client "$2" broker-coordinator
    ;;
authority:2)
    mkdir -p "$2"
    cd "$2"
    if [ -e ca.key ]; then
        echo "$2/ca.key exists: every certificate of the fleet hangs on it, so it is not replaced" >&2
        exit 1
    fi
    # A file instead of -addext: that would repeat what some openssl.cnf add by themselves.
    printf '%s\n' '[req]' distinguished_name=name x509_extensions=authority '[name]' '[authority]' \
        basicConstraints=critical,CA:TRUE subjectKeyIdentifier=hash keyUsage=critical,keyCertSign,cRLSign > ca.cnf
    # shellcheck disable=SC2086
    openssl req -x509 $new_key -config ca.cnf -subj "/CN=edgeflock authority" -days "$days" -sha256 \
        -keyout ca.key -out ca.crt 2>/dev/null
    rm ca.cnf
    chmod 644 ca.crt
    ;;
broker:3)
    cd "$2"
    case "$3" in
    *[!0-9.]*) alternative="DNS:$3" ;;
    *) alternative="IP:$3" ;;
    esac
    issue broker "$3" "extendedKeyUsage=serverAuth
subjectAltName=$alternative"
    ;;
client:3)
    case "$3" in
    *[!a-z0-9_-]* | "" | ?????????????????????????????????????????????????*)
        echo "name '$3' must be 1 to 48 characters of a-z, 0-9, '-' and '_'" >&2
        exit 1
        ;;
    esac
    cd "$2"
    issue "$3" "$3" extendedKeyUsage=clientAuth
    ;;
*)
    sed -n '4,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
