#!/bin/sh
# TPC-C through clusters of four replicas, with speculative and with deferred execution, and on one plain PostgreSQL with
# the same settings, side by side in one run: throughput, latencies, and CPU seconds per transaction by part. Everything
# shares this machine's cores.
#
#   scripts/bench-tpcc.sh [PATH-TO-STEELDB]
#
# BENCH_WAREHOUSES, BENCH_TERMINALS, BENCH_SECONDS, BENCH_RUNS size it; BENCH_EXECUTION names the clusters; BENCH_OUT is the folder of the raw reports.
set -eu
STEELDB=$(realpath "${1:-target/release/steeldb}")
here=$(dirname "$(realpath "$0")")
: "${BENCH_WAREHOUSES:=5}" "${BENCH_TERMINALS:=8}" "${BENCH_SECONDS:=30}" "${BENCH_RUNS:=3}"
: "${BENCH_EXECUTION:=speculative deferred}"
work=$(mktemp -d /tmp/steeldb-bench-XXXXXX)
out=$(mkdir -p "${BENCH_OUT:-target/bench}" && realpath "${BENCH_OUT:-target/bench}")
chmod 755 "$work"
plain_pid=
finish() {
    if [ -n "$plain_pid" ]; then
        kill -INT "$plain_pid" 2>/dev/null || true
        wait "$plain_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
export STEELDB BENCH_WAREHOUSES BENCH_TERMINALS BENCH_SECONDS BENCH_RUNS here work out

# One system: load, then the runs, each with the CPU it took. $1: its name, $2: the folder its processes name.
measure='
set -eu
"$STEELDB" tpcc load --warehouses "$BENCH_WAREHOUSES" >/dev/null
"$STEELDB" tpcc run --terminals "$BENCH_TERMINALS" --duration 5s >/dev/null
run=1
while [ "$run" -le "$BENCH_RUNS" ]; do
    sh "$here/cpu-by-part.sh" "$FOLDER" >"$out/$NAME-$run.before"
    "$STEELDB" tpcc run --terminals "$BENCH_TERMINALS" --duration "${BENCH_SECONDS}s" --json "$out/$NAME-$run.json"
    sh "$here/cpu-by-part.sh" "$FOLDER" >"$out/$NAME-$run.after"
    run=$((run + 1))
done
"$STEELDB" tpcc check | tail -1
'
export measure

for execution in $BENCH_EXECUTION; do
    echo "== cluster of four replicas, $execution execution, $BENCH_WAREHOUSES warehouses, $BENCH_TERMINALS terminals"
    NAME=$execution FOLDER="$work/$execution" "$STEELDB" demo --dir "$work/$execution" --listen 127.0.0.1:0 \
        --execution "$execution" --run "$measure"
done

echo "== one plain PostgreSQL with the same settings"
# The replica's own files make the plain server: same initdb, same settings, another socket directory.
bin=${STEELDB_PG_BIN:-$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)}
plain="$work/plain"
mkdir -p "$plain"
as_user() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    chown postgres "$plain"
    as_user() { setpriv --reuid postgres --regid "$(id -g postgres)" --clear-groups "$@"; }
fi
as_user "$bin/initdb" -D "$plain/data" -U app --auth=trust --encoding=UTF8 --locale=C.UTF-8 --data-checksums >/dev/null
settings=$(find "$work" -name steeldb.conf | head -1)
grep -vE "^(unix_socket_directories|listen_addresses)" "$settings" >"$plain/settings.conf"
chmod 644 "$plain/settings.conf"
as_user "$bin/postgres" -D "$plain/data" -c "config_file=$plain/settings.conf" -c "hba_file=$plain/data/pg_hba.conf" \
    -c "ident_file=$plain/data/pg_ident.conf" -c "unix_socket_directories=$plain" -c "listen_addresses=" \
    >"$plain/log" 2>&1 &
plain_pid=$!
tries=0
until "$bin/psql" -h "$plain" -U app -d postgres -c "CREATE DATABASE app" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$plain_pid" 2>/dev/null; then
        cat "$plain/log" >&2
        exit 1
    fi
    sleep 0.2
done
NAME=plain FOLDER="$plain" PGHOST="$plain" PGPORT=5432 PGUSER=app PGDATABASE=app sh -c "$measure"

sh "$here/bench-table.sh" "$out" "$BENCH_RUNS" $BENCH_EXECUTION plain | tee "$out/table.md"
