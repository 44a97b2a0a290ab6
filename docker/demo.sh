#!/bin/sh
# The demonstration behind `make docker-demo` and `make docker-geo`: makes the image and brings a cluster up.
#
#   local   four replicas: runs TPC-C and shows the report, restarts every container one after the other, compares the replicas
#   geo     five regions with a wide-area network between them: runs TPC-C, has `steeldb cluster plan` say who should lead,
#           answer and weigh more, orders that, runs TPC-C again, compares the replicas
#
#   host    what four hosts of their own get, side by side on this one: each part is packed, unpacked in a folder of its own
#           and started as a project of its own; a network stands for the one between the hosts
#
#   docker/engine.sh docker/demo.sh [STEELDB [STEELDB-WAN]]
#
# With the paths of executables (geo needs both) the images are made of these; without, from source. DEMO_KINDS says which
# (local). DEMO_SECONDS, DEMO_WAREHOUSES and DEMO_TERMINALS size it; DEMO_LOAD holds more flags of `steeldb tpcc load`. All is
# taken down again. Status 77: no image can be made here, and a line says why.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${DEMO_SECONDS:=30}" "${DEMO_WAREHOUSES:=1}" "${DEMO_TERMINALS:=4}" "${DEMO_LOAD:=}" "${DEMO_KINDS:=local}" "${COMPOSE:=docker compose}"
step() { printf '\n== %s\n' "$*"; }

# A project, configuration and volumes of its own: a cluster that is there stays as it is.
work=$(mktemp -d /tmp/steeldb-docker-demo-XXXXXX)
chmod 711 "$work"
STEELDB_IMAGE=steeldb:demo STEELDB_WAN_IMAGE=steeldb-wan:demo
STEELDB_PORT_1=0 STEELDB_PORT_2=0 STEELDB_PORT_3=0 STEELDB_PORT_4=0 STEELDB_PORT_5=0
export STEELDB_IMAGE STEELDB_WAN_IMAGE STEELDB_PORT_1 STEELDB_PORT_2 STEELDB_PORT_3 STEELDB_PORT_4 STEELDB_PORT_5
# The one that is shown now: local, geo, or host and its number
kind=local
configuration=/etc/steeldb/proxy.toml
compose() {
    case $kind in
    host-*) $COMPOSE -p "steeldb-demo-$kind" -f "$work/$kind/compose.yml" -f "$work/$kind/beside.yml" "$@" ;;
    *) $COMPOSE -p "steeldb-demo-$kind" -f "$work/docker/$kind/compose.yml" "$@" ;;
    esac
}
tools() { compose --ansi never run --rm -T tools "$@"; }
# What is up: kinds as above. The network between hosts, if there is one.
up='' between=''
finish() {
    status=$?
    for kind in $up; do
        compose down -v -t 20 >/dev/null 2>&1 || true
    done
    [ -z "$between" ] || docker network rm "$between" >/dev/null 2>&1 || true
    rm -rf "$work"
    if [ "$status" = 77 ]; then
        printf '\nVERDICT: none. Nothing could be shown here.\n'
    elif [ "$status" = 0 ]; then
        printf '\nVERDICT: good. TPC-C is consistent, and all replicas hold the same rows.\n'
    else
        printf '\nVERDICT: FAILED (status %s) in the last step named above.\n' "$status"
    fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# Waits for what the images' health checks say, at most three minutes.
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
        if [ "$tries" -gt 360 ]; then
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
    bring_up
    healthy
    compose ps
}

bring_up() {
    up="$up $kind"
    compose up -d >/dev/null 2>&1 || { compose up -d; exit 1; }
}

stop() {
    step "taking it down"
    for kind in $up; do
        compose down -v -t 20 >/dev/null 2>&1
    done
    up=
}

wanted() { case " $DEMO_KINDS " in *" $1 "*) ;; *) return 1 ;; esac; }

# What the administrator orders, from a proxy's container. The key is on no host of the cluster: it is handed in for this one
# command.
administer() {
    # shellcheck disable=SC2016
    compose exec -T proxy-oregon sh -c 'umask 077; cat >/tmp/administrator.key; "$@"; status=$?; rm -f /tmp/administrator.key; exit $status' \
        sh "$@" <"$work/docker/$kind/conf/administrator.key"
}

cp -r "$here" "$work/docker"
rm -rf "$work"/docker/*/conf
if wanted geo && [ $# = 1 ]; then
    echo "geo needs the executable of the wide-area network as well: make docker-geo" >&2
    exit 2
fi
step "making the image"
if [ $# -gt 0 ]; then
    "$here/image.sh" "$@"
else
    DOCKER_BUILDKIT=1 docker build -q -f "$here/Dockerfile" -t "$STEELDB_IMAGE" "$here/.."
    ! wanted geo || DOCKER_BUILDKIT=1 docker build -q -f "$here/Dockerfile" -t "$STEELDB_WAN_IMAGE" --target wan-from-source "$here/.."
fi
docker image ls "$STEELDB_IMAGE"
"$work/docker/check-image.sh" "$STEELDB_IMAGE"
# Not every host lets containers have a network, and what cannot be had here says nothing of the cluster.
probe=steeldb-demo-probe-$$
docker network create "$probe" >/dev/null || { echo "no network for containers can be had here" >&2; exit 77; }
reached=0
docker run --rm --network "$probe" --entrypoint true "$STEELDB_IMAGE" >&2 || reached=$?
docker network rm "$probe" >/dev/null
[ "$reached" = 0 ] || { echo "no container with a network can be started here" >&2; exit 77; }

if wanted local; then
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
    tools verify --config $configuration
    stop
fi

if wanted geo; then
    # As `steeldb init` leaves it: the master in Ireland, the first two weigh more. The applications are in Oregon.
    STEELDB_MASTER=1 STEELDB_HEAVY="0, 1"
    export STEELDB_MASTER STEELDB_HEAVY
    start geo "five regions and the wide-area network between them"
    step "who the replicas are"
    tools status --config $configuration
    step "loading a small TPC-C from Oregon"
    # shellcheck disable=SC2086
    tools tpcc load --warehouses "$DEMO_WAREHOUSES" --items 100 --customers-per-district 30 --connections 1
    step "running TPC-C from Oregon for $DEMO_SECONDS s with $DEMO_TERMINALS terminals, the master in Ireland"
    tools tpcc run --duration "${DEMO_SECONDS}s" --terminals "$DEMO_TERMINALS"
    step "what other leaders, masters and weights are worth from Oregon"
    tools cluster plan --config $configuration --statements 30 --top 5 >"$work/plan"
    cat "$work/plan"
    sed -n 's|^  \(steeldb .*\)|\1|p' "$work/plan" | sed 's| administrator.key| /tmp/administrator.key|' >"$work/commands"
    [ -s "$work/commands" ] || { echo "the plan names no commands" >&2; exit 1; }
    step "ordering what the plan proposes"
    while read -r command; do
        echo "$command"
        # shellcheck disable=SC2086
        administer $command
    done <"$work/commands"
    tools status --config $configuration
    step "running TPC-C from Oregon for $DEMO_SECONDS s with $DEMO_TERMINALS terminals, as planned"
    tools tpcc run --duration "${DEMO_SECONDS}s" --terminals "$DEMO_TERMINALS"
    step "checking the consistency conditions of TPC-C"
    tools tpcc check
    step "comparing the databases of all replicas"
    tools verify --config $configuration
    stop
fi

if wanted host; then
    step "making keys and configuration, and what each host gets"
    "$work/docker/prepare.sh" host db0,db1,db2,db3
    between=steeldb-demo-hosts
    docker network create "$between" >/dev/null
    # Ports of this host that are free: the real ones' 7400 is there once.
    STEELDB_REPLICA_PORT=127.0.0.1:0 STEELDB_PORT=0
    export STEELDB_REPLICA_PORT STEELDB_PORT
    for number in 0 1 2 3; do
        mkdir "$work/host-$number"
        "$work/docker/host/pack.sh" "$number" "$work/host-$number.tar"
        tar -C "$work/host-$number" -xpf "$work/host-$number.tar"
        chmod 711 "$work/host-$number" "$work/host-$number/conf"
        cat >"$work/host-$number/beside.yml" <<END
services:
  replica: {networks: {between: {aliases: [db$number]}}}
  proxy: {networks: {between: {aliases: [application$number]}}}
networks:
  between: {external: true, name: $between}
END
    done
    step "starting four projects"
    for kind in host-0 host-1 host-2 host-3; do bring_up; done
    for kind in host-0 host-1 host-2 host-3; do healthy; done
    compose ps
    # As the application beside the proxy of a host would.
    application() {
        # shellcheck disable=SC2016
        docker run --rm --network "$between" --user 0 -v "$work/docker/host/conf/app.password:/app.password:ro" \
            -e PGHOST="application$1" -e PGPORT=6432 -e PGUSER=app -e PGDATABASE=app --entrypoint sh "$STEELDB_IMAGE" \
            -c 'PGPASSWORD=$(cat /app.password); export PGPASSWORD; exec steeldb "$@"' sh "$2" "$3" $DEMO_LOAD
    }
    step "TPC-C loaded through the proxy of the first host, checked through that of the last"
    application 0 tpcc load
    DEMO_LOAD='' application 3 tpcc check
    step "comparing the databases of all replicas"
    compose exec -T proxy steeldb verify --config $configuration
    stop
    docker network rm "$between" >/dev/null
    between=
fi
