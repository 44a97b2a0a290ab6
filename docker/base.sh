#!/bin/sh
# The base image, debian:bookworm-slim: pulled, or, where no registry of images can be reached, made of Debian's packages.
set -eu
base=${1:-debian:bookworm-slim}
docker image inspect "$base" >/dev/null 2>&1 && exit 0
# A registry that does not answer is as good as none.
if timeout 60 docker pull -q "$base" >/dev/null 2>&1; then
    exit 0
fi
echo "$base cannot be pulled: it is made with debootstrap" >&2
root=$(mktemp -d /tmp/steeldb-base-XXXXXX)
finish() {
    umount "$root/proc" "$root/sys" 2>/dev/null || true
    rm -rf "$root"
}
trap finish EXIT
trap 'exit 130' INT TERM
debootstrap --variant=minbase bookworm "$root" >"$root.log" 2>&1 || {
    tail -n 5 "$root.log" >&2
    rm -f "$root.log"
    exit 1
}
rm -f "$root.log"
tar -C "$root" -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' . |
    docker import --change 'CMD ["bash"]' - "$base" >/dev/null
