#!/bin/sh
# Restarts the containers of a cluster one after the other, under load: one replica at a time, the master moved away first,
# and each back and ready before the next. Then the proxies, whose sessions end: applications with several proxies in their
# connection string go on at another one.
#
#   docker/rolling-restart.sh docker/local/compose.yml
#
# For a new image: set STEELDB_IMAGE, and what is restarted is made anew from it. Wire and journal formats may change between
# versions until 1.0: see docs/operations.md before.
set -eu
file=${1:?a compose file}
: "${COMPOSE:=docker compose}"
compose() { $COMPOSE -f "$file" "$@"; }
conf=/etc/steeldb/proxy.toml
administrator=$(dirname "$file")/conf/administrator.key

services=$(compose config --services)
replicas=$(echo "$services" | grep '^replica' | sort)
proxies=$(echo "$services" | grep '^proxy' | sort)
asked=$(echo "$proxies" | head -n 1)

# In a proxy's container, with its key.
ask() { compose exec -T "$asked" steeldb "$@"; }

# Until a command succeeds; at most two minutes.
until_true() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] || { echo "in vain: $*" >&2; "$@" || true; exit 1; }
        sleep 0.5
    done
}
# Ready, by its own word: it is asked now, not when Docker's next health check is due.
healthy() { compose exec -T "$1" steeldb-healthcheck; }
# All members answer, know the view, trust their data, and have applied what they were delivered.
settled() { ask cluster status --config "$conf" --patience 5; }

restart() {
    echo "restarting $1"
    compose up -d --no-deps --force-recreate "$1" >/dev/null 2>&1
    until_true healthy "$1"
}

master() { ask master status --config "$conf" --json | tr -d ' \n' | sed -n 's/.*"master":\([0-9]*\).*/\1/p'; }

# The replicas' numbers are their services' order in the configuration.
number() { compose exec -T "$1" sed -n 's/^id = \([0-9]*\)$/\1/p' /etc/steeldb/replica.toml | head -n 1; }

count=$(echo "$replicas" | wc -l)
until_true settled
for replica in $replicas; do
    id=$(number "$replica")
    if [ "$id" = "$(master)" ]; then
        next=$(((id + 1) % count))
        echo "moving the master from replica $id to $next"
        # The administrator's key is on no host of the cluster: it is handed in for this one command.
        compose exec -T "$asked" sh -c "umask 077; cat >/tmp/administrator.key; steeldb master move --config $conf --key /tmp/administrator.key $next; status=\$?; rm -f /tmp/administrator.key; exit \$status" <"$administrator"
    fi
    restart "$replica"
    until_true settled
done
for proxy in $proxies; do
    restart "$proxy"
done
until_true settled
echo "all are restarted"
