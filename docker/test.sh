#!/bin/sh
# The demonstration in containers as a test: small, and without the five regions. Status 0 when it passed, or when it cannot be
# had here, which is said with the reason: no Docker engine, none that starts, no packages, no image. 15 minutes at most.
#
#   docker/test.sh STEELDB
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ -x "${1:-}" ] || { echo "docker/test.sh: no executable ${1:-given}; cargo build --profile test --bin steeldb makes it" >&2; exit 2; }
if command -v shellcheck >/dev/null 2>&1; then
    shellcheck -S warning "$here"/*.sh "$here"/*/*.sh
fi
status=0
DEMO_SECONDS=5 DEMO_TERMINALS=2 DEMO_WAREHOUSES=1 DEMO_LOAD="--items 1000 --customers-per-district 30 --connections 1" \
    timeout -k 120 900 "$here/engine.sh" "$here/demo.sh" "$@" </dev/null || status=$?
case $status in
0) echo "docker: passed" ;;
77)
    echo "docker: skipped, for the reason above"
    status=0
    ;;
124 | 137) echo "docker: FAILED, not through within 15 minutes" ;;
*) echo "docker: FAILED" ;;
esac
exit "$status"
