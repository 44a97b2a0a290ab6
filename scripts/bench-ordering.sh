#!/bin/sh
# The ordering server alone, without databases: four replicas and the clients in processes of their own on this machine.
# A Markdown table on standard output and in target/bench/ordering.md, the same as JSON in target/bench/ordering.json.
#
#   scripts/bench-ordering.sh [FLAGS OF ordering-load bench]
#
# The build measures unsigned requests too, which nothing shipped would order; so it has a target folder of its own.
set -eu
cd "$(dirname "$(realpath "$0")")/.."
out=$(mkdir -p "${BENCH_OUT:-target/bench}" && realpath "${BENCH_OUT:-target/bench}")
"${CARGO:-cargo}" build --release --locked -p steeldb-ordering-load --features unsigned-requests \
    --target-dir target/bench-ordering
target/bench-ordering/release/ordering-load bench --json "$out/ordering.json" "$@" | tee "$out/ordering.md"
