#!/bin/sh
# CPU seconds used so far, by part: for the servers of the replicas (or a plain one), the agents, the proxy.
#
#   scripts/cpu-by-part.sh DIRECTORY
#
# Counts the processes whose command line names DIRECTORY (a demonstration's), and the backends of its servers: those
# that have ended are in their postmaster's account of its children. Prints one "part seconds" per line.
set -eu
hz=$(getconf CLK_TCK)

# utime, stime and, for a postmaster, those of the children it has waited for. $1: pid, $2: 1 to add children's.
ticks() {
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk -v children="$2" '{ print $12 + $13 + (children ? $14 + $15 : 0) }'
}

servers=0 decoding=0 agents=0 proxy=0
for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    line=$(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null) || continue
    case "$line" in
    *"$1"*) ;;
    *) continue ;;
    esac
    case "$line" in
    *" replica "*) agents=$((agents + $(ticks "$pid" 0))) ;;
    *" proxy "*) proxy=$((proxy + $(ticks "$pid" 0))) ;;
    *postgres*" -D "*)
        servers=$((servers + $(ticks "$pid" 1)))
        for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do
            name=$(tr '\0' ' ' <"/proc/$child/cmdline" 2>/dev/null) || continue
            used=$(ticks "$child" 0)
            case "$name" in
            *walsender*) decoding=$((decoding + ${used:-0})) ;;
            *) servers=$((servers + ${used:-0})) ;;
            esac
        done
        ;;
    esac
done
for part in servers decoding agents proxy; do
    eval "value=\$$part"
    awk -v part="$part" -v ticks="$value" -v hz="$hz" 'BEGIN { printf "%s %.2f\n", part, ticks / hz }'
done
