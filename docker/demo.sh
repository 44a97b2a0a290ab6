#!/bin/sh
# The demonstration behind `make docker-demo`: builds the image, brings a cluster up, runs TPC-C on it and shows the report,
# restarts every container one after the other, compares the replicas, takes everything down.
#
#   docker/engine.sh docker/demo.sh [STEELDB [STEELDB-WAN]]
#
# With the paths of executables the image is made of these; without, from source. With the second the five regions are shown as
# well. DEMO_SECONDS, DEMO_WAREHOUSES and DEMO_TERMINALS size it; DEMO_LOAD holds more flags of `steeldb tpcc load`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${DEMO_SECONDS:=30}" "${DEMO_WAREHOUSES:=1}" "${DEMO_TERMINALS:=4}" "${DEMO_LOAD:=}" "${COMPOSE:=docker compose}"
step() { printf '\n== %s\n' "$*"; }

# A project, configuration and volumes of its own: a cluster that is there stays as it is.
work=$(mktemp -d /tmp/steeldb-docker-demo-XXXXXX)
chmod 711 "$work"
STEELDB_IMAGE=steeldb:demo STEELDB_WAN_IMAGE=steeldb-wan:demo
STEELDB_PORT_1=0 STEELDB_PORT_2=0 STEELDB_PORT_3=0 STEELDB_PORT_4=0 STEELDB_PORT_5=0
export STEELDB_IMAGE STEELDB_WAN_IMAGE STEELDB_PORT_1 STEELDB_PORT_2 STEELDB_PORT_3 STEELDB_PORT_4 STEELDB_PORT_5
# local or geo
kind=local
compose() { $COMPOSE -p "steeldb-demo-$kind" -f "$work/docker/$kind/compose.yml" "$@"; }
tools() { compose --ansi never run --rm -T tools "$@"; }
up=
finish() {
    status=$?
    [ -z "$up" ] || compose down -v -t 20 >/dev/null 2>&1 || true
    rm -rf "$work"
    if [ "$status" = 0 ]; then
        printf '\nVERDICT: good. TPC-C is consistent, and all replicas hold the same rows.\n'
    else
        printf '\nVERDICT: FAILED (status %s) in the last step named above.\n' "$status"
    fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# Waits for what the images' health checks say, at most two minutes.
healthy() {
    tries=0
    while :; do
        sick=
        for id in $(compose ps -q); do
            case "$(docker inspect -f '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id")" in
            "running healthy" | "running ") ;;
            *) sick="$sick $(docker inspect -f '{{.Name}}' "$id")" ;;
            esac
        done
        [ -n "$sick" ] || return 0
        tries=$((tries + 1))
        if [ "$tries" -gt 240 ]; then
            echo "not healthy:$sick" >&2
            compose logs --tail 20 >&2
            return 1
        fi
        sleep 0.5
    done
}

start() {
    kind=$1
    step "making keys and configuration ($kind)"
    "$work/docker/prepare.sh" "$kind"
    step "starting $2"
    up=1
    compose up -d >/dev/null 2>&1 || { compose up -d; exit 1; }
    healthy
    compose ps
}

stop() {
    step "taking it down"
    compose down -v -t 20 >/dev/null 2>&1
    up=
}

cp -r "$here" "$work/docker"
rm -rf "$work"/docker/*/conf
step "building the image"
if [ $# -gt 0 ]; then
    mkdir "$work/prebuilt"
    install -m 755 "$1" "$work/prebuilt/steeldb"
    [ $# -lt 2 ] || install -m 755 "$2" "$work/prebuilt/steeldb-wan"
    strip "$work"/prebuilt/* 2>/dev/null || true
    "$here/base.sh"
    # Debian's packages come over this host's network.
    docker build -q --network host -f "$work/docker/Dockerfile" -t "$STEELDB_IMAGE" --target prebuilt "$work"
    [ $# -lt 2 ] || docker build -q --network host -f "$work/docker/Dockerfile" -t "$STEELDB_WAN_IMAGE" --target wan "$work"
else
    DOCKER_BUILDKIT=1 docker build -q -f "$here/Dockerfile" -t "$STEELDB_IMAGE" "$here/.."
fi
docker image ls "$STEELDB_IMAGE"
"$work/docker/check-image.sh" "$STEELDB_IMAGE"

start local "four replicas and two proxies"
step "loading TPC-C, $DEMO_WAREHOUSES warehouse(s)"
# shellcheck disable=SC2086
tools tpcc load --warehouses "$DEMO_WAREHOUSES" $DEMO_LOAD
step "running TPC-C for $DEMO_SECONDS s with $DEMO_TERMINALS terminals"
tools tpcc run --duration "${DEMO_SECONDS}s" --terminals "$DEMO_TERMINALS"
step "restarting one container after the other"
COMPOSE="$COMPOSE -p steeldb-demo-local" "$work/docker/rolling-restart.sh" "$work/docker/local/compose.yml"
step "running TPC-C again"
tools tpcc run --duration 5s --terminals "$DEMO_TERMINALS" >/dev/null
step "checking the consistency conditions of TPC-C"
tools tpcc check
step "comparing the databases of all replicas"
tools verify --config /etc/steeldb/proxy.toml
stop

if [ $# -ge 2 ]; then
    start geo "five regions and the wide-area network between them"
    step "who the replicas are"
    tools cluster status --config /etc/steeldb/proxy.toml
    step "loading a small TPC-C and running it from Oregon"
    tools tpcc load --warehouses 1 --items 100 --customers-per-district 30 --connections 1
    tools tpcc run --duration 20s --terminals "$DEMO_TERMINALS"
    stop
fi
