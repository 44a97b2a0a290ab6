#!/bin/sh
# Whether this container serves: status 0 or 1. A proxy takes applications (whether it reaches a quorum they are told
# once they are known); a replica takes links and its
# PostgreSQL answers. Which of them it is, its configuration tells.
set -u
etc=/etc/steeldb data=/var/lib/steeldb

# The port of the first `listen` in a file.
port() { sed -n 's/^listen *= *".*:\([0-9]*\)".*/\1/p' "$1" | head -n 1; }

# Whether somebody listens; no connection is made, which a replica would log as one that shows no key.
listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$(printf ':%04X 0*:0000 0A ' "$1")"; }

if [ -e "$etc/proxy.toml" ]; then
    port=$(port "$etc/proxy.toml")
    exec pg_isready -h 127.0.0.1 -p "${port:-6432}"
elif [ -e "$etc/replica.toml" ]; then
    port=$(port "$etc/replica.toml")
    listens "${port:-7400}" || { echo "nothing listens on port ${port:-7400}"; exit 1; }
    exec pg_isready -h "$data/postgres.socket" -p 5432
fi
# A tool.
exit 0
