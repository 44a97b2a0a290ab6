#!/bin/sh
# Installs what SteelDB needs and this machine lacks: a PostgreSQL server (15 or later) to run private servers with,
# and what the build needs: a C compiler (C++ for `make fuzz`), and libclang for the bindings to PostgreSQL's parser.
#
# No existing PostgreSQL cluster is touched. Debian's package would create and start one of its own: it is told not to,
# unless somebody has configured that already.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }

has_postgres() {
    for dir in ${STEELDB_PG_BIN:+"$STEELDB_PG_BIN"} /usr/lib/postgresql/*/bin $(echo "$PATH" | tr ':' ' '); do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] || continue
        major=$("$dir/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
        [ "${major:-0}" -ge 15 ] && return 0
    done
    return 1
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for file in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang*.so* /usr/lib/libclang*.so* /usr/local/lib/libclang*.so*; do
        [ -e "$file" ] && return 0
    done
    return 1
}

packages=
has_postgres || packages="$packages postgresql"
command -v psql >/dev/null 2>&1 || packages="$packages postgresql-client"
has_libclang || packages="$packages libclang-dev"
{ command -v cc && command -v c++; } >/dev/null 2>&1 || packages="$packages build-essential"
# For the tests with a Python driver.
/usr/bin/python3 -c "import psycopg2" >/dev/null 2>&1 || packages="$packages python3-psycopg2"

if ! command -v cargo >/dev/null 2>&1; then
    say "Rust is missing: install it from https://rustup.rs, or your distribution's rustc and cargo (1.88 or later)"
    exit 1
fi
if [ -z "$packages" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    say "missing, under Debian's names:$packages"
    say "install them with your package manager, or set STEELDB_PG_BIN and LIBCLANG_PATH to where they are"
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    say "to be installed by root: apt-get install$packages"
    exit 1
fi

say "installing$packages"
export DEBIAN_FRONTEND=noninteractive
case "$packages" in
*" postgresql "*|*" postgresql")
    settings=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$settings" ]; then
        $as_root mkdir -p "${settings%/*}"
        echo "create_main_cluster = false" | $as_root tee "$settings" >/dev/null
    fi
    ;;
esac
$as_root apt-get update -qq
# --force-confold: the file above stays, whatever the package brings.
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold $packages

if ! has_postgres; then
    say "no PostgreSQL 15 or later was found after the installation; this distribution's may be older"
    exit 1
fi
