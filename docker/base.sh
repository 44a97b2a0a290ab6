#!/bin/sh
# The base image, debian:bookworm-slim: pulled, or, where no registry of images can be reached, made of Debian's packages.
#
#   docker/base.sh [NAME]
#
# Status 77: it can be had in neither way, and a line says why.
set -eu
base=${1:-debian:bookworm-slim}
skip() { echo "no base image: $*" >&2; exit 77; }
docker image inspect "$base" >/dev/null 2>&1 && exit 0
# A registry that does not answer is as good as none.
if timeout 30 docker pull -q "$base" >/dev/null 2>&1; then
    exit 0
fi
[ "$(id -u)" = 0 ] || skip "$base cannot be pulled, and only root can make it with debootstrap"
command -v debootstrap >/dev/null 2>&1 || skip "$base cannot be pulled, and debootstrap is not installed"
echo "$base cannot be pulled: it is made with debootstrap" >&2
root=$(mktemp -d /tmp/steeldb-base-XXXXXX)
finish() {
    umount "$root/proc" "$root/sys" 2>/dev/null || true
    umount "$root" 2>/dev/null || true
    rm -rf "$root" "$root.log"
}
trap finish EXIT
trap 'exit 130' INT TERM
# In memory, where there is enough: dpkg asks the disk for every file otherwise.
free_kb=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
[ "${free_kb:-0}" -lt 2000000 ] || mount -t tmpfs -o size=1g,mode=755 steeldb-base "$root" 2>/dev/null || true
timeout 240 debootstrap --variant=minbase bookworm "$root" >"$root.log" 2>&1 || {
    tail -n 3 "$root.log" >&2
    skip "debootstrap failed, or took longer than four minutes"
}
tar -C "$root" -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' . |
    docker import --change 'CMD ["bash"]' - "$base" >/dev/null
