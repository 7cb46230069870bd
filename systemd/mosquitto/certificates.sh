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

refuse() {
    echo "$1" >&2
    exit 1
}

refuse_full() {
    refuse "$PWD: can't be written; make room on that disk"
}

quiet_openssl() { # arguments; says nothing unless it fails
    said=$(openssl "$@" 2>&1) || refuse "openssl $1: $said"
}

enter() { # DIR
    cd "$1" 2> /dev/null || refuse "$1: no folder of a fleet's certificates; make one: certificates.sh server DIR HOST"
}

issue() { # file, common name, extensions: Python 3.13 refuses certificates without the key identifiers and usages
    [ -r ca.key ] || refuse "$PWD/ca.key: missing; name the folder in which certificates.sh made the authority"
    file=$1
    trap 'rm -f "$file.csr" "$file.ext" "$file.key.new" "$file.crt.new"' EXIT
    # shellcheck disable=SC2086 # the options are words
    quiet_openssl req -new $new_key -subj "/CN=$2" -keyout "$file.key.new" -out "$file.csr"
    printf '%s\n' basicConstraints=critical,CA:FALSE subjectKeyIdentifier=hash authorityKeyIdentifier=keyid \
        keyUsage=critical,digitalSignature "$3" > "$file.ext" || refuse_full
    quiet_openssl x509 -req -in "$file.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -sha256 \
        -extfile "$file.ext" -out "$file.crt.new"
    chmod 644 "$file.crt.new"
    sync "$file.key.new" "$file.crt.new" || refuse_full
    rm -f "$file.crt" # as long as it is missing, it is made anew: an earlier one is not this key's
    mv "$file.key.new" "$file.key"
    mv "$file.crt.new" "$file.crt"
}

alternative_name() { # HOST, as a certificate says it
    case "$1" in
    *[!0-9A-Za-z._:-]* | *:*[!0-9A-Fa-f:.]* | *[!0-9A-Fa-f:.]*:* | "")
        refuse "host '$1' must be a name such as broker.example, or an IP address, without scheme, port or brackets"
        ;;
    *:*) echo "IP:$1" ;;
    *[!0-9.]*) echo "DNS:$1" ;;
    *) echo "IP:$1" ;;
    esac
}

authority() { # DIR
    mkdir -p "$1"
    enter "$1"
    [ ! -e ca.key ] || refuse "$1/ca.key exists: every certificate of the fleet hangs on it, so it is not replaced"
    # A file instead of -addext: that would repeat what some openssl.cnf add by themselves.
    trap 'rm -f ca.cnf ca.key.new ca.crt.new' EXIT
    printf '%s\n' '[req]' distinguished_name=name x509_extensions=authority '[name]' '[authority]' \
        basicConstraints=critical,CA:TRUE subjectKeyIdentifier=hash keyUsage=critical,keyCertSign,cRLSign > ca.cnf || refuse_full
    # shellcheck disable=SC2086
    quiet_openssl req -x509 $new_key -config ca.cnf -subj "/CN=edgeflock authority" -days "$days" -sha256 \
        -keyout ca.key.new -out ca.crt.new
    chmod 644 ca.crt.new
    sync ca.key.new ca.crt.new || refuse_full
    mv -f ca.crt.new ca.crt
    mv ca.key.new ca.key # last: as long as it is missing, both are made anew
}

broker() { # DIR HOST
    alternative=$(alternative_name "$2")
    enter "$1"
    # Not HOST as the common name, which has 64 characters at most: clients read the alternative name.
    issue broker "edgeflock broker" "extendedKeyUsage=serverAuth
subjectAltName=$alternative,DNS:localhost"
}

client() { # DIR NAME
    case "$2" in
    *[!a-z0-9_-]* | "" | ?????????????????????????????????????????????????*)
        refuse "name '$2' must be 1 to 48 characters of a-z, 0-9, '-' and '_'"
        ;;
    esac
    enter "$1"
    issue "$2" "$2" extendedKeyUsage=clientAuth
}

case "${1:-}:$#" in
server:3)
    alternative_name "$3" > /dev/null # before an authority is made that the next try would find
    (authority "$2")
    (broker "$2" "$3")
    (client "$2" broker-coordinator)
    ;;
authority:2) authority "$2" ;;
broker:3) broker "$2" "$3" ;;
client:3) client "$2" "$3" ;;
*)
    sed -n '4,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
