#!/bin/sh
# What an image must and must not have: its user is not root, it has a health check, and no key is in any of its files.
#
#   docker/check-image.sh IMAGE
set -eu
image=$1
fail() { echo "$image: $*" >&2; exit 1; }
of() { docker image inspect -f "$1" "$image"; }
case "$(of '{{.Config.User}}')" in "" | root | 0 | 0:*) fail "runs as root" ;; esac
[ "$(of '{{if .Config.Healthcheck}}yes{{end}}')" = yes ] || fail "has no health check"
# shellcheck disable=SC2016
found=$(docker run --rm --network none --user 0 --entrypoint sh "$image" -c '
    find / -xdev -type f \( -name "*.key" -o -name "*.pem" -o -name "*.toml" -o -name users -o -name "*.password" -o -name .cargo -o -name .git \) \
        -not -path "/proc/*" -not -path "/usr/share/*" -not -path "/usr/bin/*" 2>/dev/null
    grep -rlsE "^[0-9a-f]{64}$" /etc /var/lib/steeldb /home /root /run 2>/dev/null
    true')
[ -z "$found" ] || fail "holds what looks like secrets or configuration: $found"
# shellcheck disable=SC2016
docker run --rm --network none --entrypoint sh "$image" -c 'test "$(id -u)" != 0 && ! test -w /usr/local/bin && postgres=$(ls -d /usr/lib/postgresql/*/bin) && "$postgres/postgres" --version && steeldb --version' ||
    fail "does not run as its user"
