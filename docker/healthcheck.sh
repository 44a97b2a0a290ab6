#!/bin/bash
# How this container is: status 0 or 1, and a line that says why. Which process it runs, its configuration tells.
#
#   steeldb-healthcheck            whether it can do its part (`/ready`): what is waited for before others are started
#   steeldb-healthcheck live       whether it lives (`/health`): for what restarts or replaces containers that are not
#
# A cluster without a quorum has no replica that is ready, and none that a restart would help.
set -u
path=/ready
case ${1:-ready} in
ready) ;;
live) path=/health ;;
*)
    echo "steeldb-healthcheck [ready | live]" >&2
    exit 2
    ;;
esac
etc=/etc/steeldb data=/var/lib/steeldb

# The first `listen` in a file, or in its section metrics.
listen() { sed -n 's/^listen *= *"\(.*\)".*/\1/p' "$1" | head -n 1; }
told() { sed -n '/^\[metrics\]/,/^\[/s/^listen *= *"\(.*\)".*/\1/p' "$1" | head -n 1; }

# Asks the process itself, at the address in its configuration.
ask() {
    local host=${1%:*} port=${1##*:} status line
    case $host in 0.0.0.0 | "[::]") host=127.0.0.1 ;; esac
    host=${host#[} host=${host%]}
    exec 3<>"/dev/tcp/$host/$port" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$path" >&3
    read -r -u 3 _ status _ || return 1
    # The header, then what it says of itself.
    while read -r -u 3 line && [ "$line" != $'\r' ]; do :; done
    cat <&3
    [ "$status" = 200 ]
}

# Whether somebody listens; no connection is made, which a replica would log as one that shows no key.
listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$(printf ':%04X 0*:0000 0A ' "$1")"; }

for kind in proxy replica; do
    file=$etc/$kind.toml
    [ -e "$file" ] || continue
    address=$(told "$file")
    if [ -n "$address" ]; then
        ask "$address"
        exit
    fi
    # It tells nothing of itself: what can be seen from outside, which is less.
    port=$(listen "$file")
    port=${port##*:}
    if [ "$kind" = proxy ]; then
        pg_isready -h 127.0.0.1 -p "${port:-6432}"
        exit
    fi
    listens "${port:-7400}" || { echo "nothing listens on port ${port:-7400}"; exit 1; }
    pg_isready -h "$data/postgres.socket" -p 5432
    exit
done
# A tool.
exit 0
