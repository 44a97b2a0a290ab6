#!/bin/sh
# The demonstration behind `make demo`: a cluster on this machine, TPC-C loaded and run on it, TPC-C's consistency
# conditions checked, the replicas' tables compared, and a verdict.
#
#   scripts/demo.sh [PATH-TO-STEELDB]
#
# DEMO_SECONDS, DEMO_WAREHOUSES and DEMO_TERMINALS size it; DEMO_LISTEN says where applications connect meanwhile.
set -eu

STEELDB=$(realpath "${1:-target/release/steeldb}")
export STEELDB
: "${DEMO_SECONDS:=30}" "${DEMO_WAREHOUSES:=1}" "${DEMO_TERMINALS:=8}"
export DEMO_SECONDS DEMO_WAREHOUSES DEMO_TERMINALS

# Each step is named before it runs, so that whatever fails is the last one named.
# shellcheck disable=SC2016
steps='
set -eu
step() { printf "\n== %s\n" "$*"; }
step "loading TPC-C, $DEMO_WAREHOUSES warehouse(s)"
"$STEELDB" tpcc load --warehouses "$DEMO_WAREHOUSES"
step "running TPC-C for $DEMO_SECONDS s with $DEMO_TERMINALS terminals"
"$STEELDB" tpcc run --duration "${DEMO_SECONDS}s" --terminals "$DEMO_TERMINALS"
step "checking the consistency conditions of TPC-C"
"$STEELDB" tpcc check
step "comparing the databases of all replicas"
"$STEELDB" verify
'

status=0
"$STEELDB" demo --listen "${DEMO_LISTEN:-127.0.0.1:0}" --run "$steps" || status=$?

if [ "$status" = 0 ]; then
    printf '\nVERDICT: good. TPC-C is consistent, and all replicas hold the same rows.\n'
else
    printf '\nVERDICT: FAILED (status %s) in the last step named above.\n' "$status"
fi
exit "$status"
