#!/bin/sh
# The images, from executables: STEELDB_IMAGE, and STEELDB_WAN_IMAGE if the second is given. A copy of them is stripped.
#
#   docker/image.sh STEELDB [STEELDB-WAN]
#
# Status 77: no image can be made here, for reasons that are not the image's, and a line says why.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${STEELDB_IMAGE:=steeldb:latest}" "${STEELDB_WAN_IMAGE:=steeldb-wan:latest}"
base=debian:bookworm-slim
"$here/base.sh" "$base"

work=$(mktemp -d /tmp/steeldb-image-XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/docker" "$work/prebuilt"
cp "$here/Dockerfile" "$here/healthcheck.sh" "$work/docker"
install -m 755 "$1" "$work/prebuilt/steeldb"
[ $# -lt 2 ] || install -m 755 "$2" "$work/prebuilt/steeldb-wan"
strip "$work"/prebuilt/* 2>/dev/null || true

# Debian's packages come over this host's network.
build() { timeout 300 docker build -q --network host -f "$work/docker/Dockerfile" "$@" "$work" >"$work/log" 2>&1; }
failed() {
    tail -n 5 "$work/log" >&2
    # Whether it is the network: what needs nothing else is tried by itself.
    if ! timeout 60 docker run --rm --network host "$base" apt-get update -qq >/dev/null 2>&1; then
        echo "no image: Debian's packages cannot be reached from a container" >&2
        exit 77
    fi
    exit 1
}
build -t "$STEELDB_IMAGE" --target prebuilt || failed
[ $# -lt 2 ] || build -t "$STEELDB_WAN_IMAGE" --target wan || failed
