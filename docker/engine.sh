#!/bin/sh
# Runs a command with a Docker engine: the one that is there, or one that is started for it and ended with it.
#
#   docker/engine.sh COMMAND ARG..
#
# Status 77: no engine can be had here, and a line says why. One that is started keeps all that it has in a temporary folder,
# touches no firewall, and is ended by its process id. COMPOSE holds the compose command meanwhile.
set -eu
skip() { echo "no Docker engine: $*" >&2; exit 77; }

compose() {
    if docker compose version >/dev/null 2>&1; then
        echo "docker compose"
    elif command -v docker-compose >/dev/null 2>&1; then
        echo docker-compose
    fi
}

if command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    COMPOSE=$(compose)
    [ -n "$COMPOSE" ] || skip "no compose command is installed"
    export COMPOSE
    exec "$@"
fi

[ "$(id -u)" = 0 ] || skip "none runs, and only root can start one"
# Debian's own clients and engine go together; others of the same name may be elsewhere in the path.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export PATH
missing=
for need in dockerd:docker.io debootstrap:debootstrap; do
    command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need##*:}"
done
[ -n "$(compose)" ] || missing="$missing docker-compose"
# Where the kernel has it, no container starts without its parser.
if grep -q Y /sys/module/apparmor/parameters/enabled 2>/dev/null; then
    command -v apparmor_parser >/dev/null 2>&1 || missing="$missing apparmor"
fi
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || skip "to be installed:$missing"
    echo "installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Somebody else may be installing something.
    # shellcheck disable=SC2086
    { timeout 60 apt-get update -qq &&
        timeout 240 apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $missing; } >/dev/null ||
        skip "cannot install$missing"
fi

work=$(mktemp -d /tmp/steeldb-docker-XXXXXX)
DOCKER_HOST=unix://$work/docker.sock
export DOCKER_HOST
# No bridge of its own: projects make theirs, and take them away. Containers reach each other and this host, no other. In a
# session of its own: a signal to all of this group reaches the command first, which still needs the engine to clean up.
setsid dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
    --bridge none --iptables=false --ip6tables=false >"$work/log" 2>&1 &
engine=$!
finish() {
    # dockerd ends its containers and containerd.
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    # It leaves the namespace of containers that use the host's network mounted.
    umount "$work"/exec/netns/* 2>/dev/null || true
    rm -rf "$work" 2>/dev/null || echo "left behind: $work" >&2
}
trap finish EXIT
trap 'exit 130' INT TERM
tries=0
until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    if ! kill -0 "$engine" 2>/dev/null || [ "$tries" -gt 300 ]; then
        grep -iE "level=(error|fatal)|failed|cannot" "$work/log" | tail -n 3 >&2 || true
        skip "dockerd does not start here"
    fi
    sleep 0.1
done
COMPOSE=$(compose)
export COMPOSE
status=0
"$@" || status=$?
exit "$status"
