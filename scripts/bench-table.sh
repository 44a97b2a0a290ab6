#!/bin/sh
# The table of scripts/bench-tpcc.sh from its raw reports: medians with range.
#
#   scripts/bench-table.sh FOLDER RUNS SYSTEM...
set -eu
folder=$1 runs=$2
shift 2

# A number of a report: the first value of a key.
value() { sed 's/[,{}]/\n/g' "$1" | sed -n "s/^ *\"$2\": *\([0-9.]*\).*/\1/p" | head -1; }
committed() { sed 's/[,{}]/\n/g' "$1" | sed -n 's/^ *"committed": *\([0-9]*\).*/\1/p' | awk '{ n += $1 } END { print n }'; }
spread() { sort -n | awk '{ v[NR] = $1 } END { m = (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2; printf "%.*f (%.*f-%.*f)", d, m, d, v[1], d, v[NR] }' d="$1"; }
each() { run=1; while [ "$run" -le "$runs" ]; do "$@"; run=$((run + 1)); done; }

# A latency of a report, ms: $1 is the text that its object begins with, $2 the key.
latency() { { tr -d ' \n' <"$folder/$name-$run.json"; echo; } | sed "s/.*$1//" | sed -n "s/^[^}]*\"$2\":\([0-9.]*\).*/\1/p"; }

printf '| system | tpmC | tpmTOTAL | NEW-ORDER p50, ms | p90 | COMMIT p50, ms | p90 | CPU ms per transaction: servers | decoding | agents | proxy |\n|---|---|---|---|---|---|---|---|---|---|---|\n'
for name in "$@"; do
    tpm() { value "$folder/$name-$run.json" "$1"; }
    cpu() {
        before=$(awk -v p="$1" '$1 == p { print $2 }' "$folder/$name-$run.before")
        after=$(awk -v p="$1" '$1 == p { print $2 }' "$folder/$name-$run.after")
        awk -v a="$after" -v b="$before" -v n="$(committed "$folder/$name-$run.json")" 'BEGIN { print (a - b) * 1000 / n }'
    }
    order='"kind":"new_order"' commit='"commit_writing":'
    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' "$name" "$(each tpm tpm_c | spread 0)" "$(each tpm tpm_total | spread 0)" \
        "$(each latency "$order" p50_ms | spread 1)" "$(each latency "$order" p90_ms | spread 1)" \
        "$(each latency "$commit" p50_ms | spread 1)" "$(each latency "$commit" p90_ms | spread 1)" \
        "$(each cpu servers | spread 2)" "$(each cpu decoding | spread 2)" "$(each cpu agents | spread 2)" "$(each cpu proxy | spread 2)"
done
