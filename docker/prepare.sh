#!/bin/sh
# Keys and configuration of a cluster in containers, made with the image itself.
#
#   docker/prepare.sh local               docker/local/conf: four replicas and two proxies on this host
#   docker/prepare.sh geo                 docker/geo/conf: five regions on this host, a wide-area network between them
#   docker/prepare.sh host HOST,HOST,..   docker/host/conf: one replica and one proxy for each host, port 7400
#
# One folder for each replica and each proxy, owned by the user of the containers (7400); every file in it is of mode 0600.
# Nothing that exists is overwritten. The password of the role app is drawn, or read from the variable
# STEELDB_PASSWORD. STEELDB_MASTER is the first master and STEELDB_HEAVY names those with the greater weight, for example
# "0, 4"; in geo unless told otherwise Oregon, and Oregon and Virginia, as for applications in Oregon. STEELDB_WIDE_AREA=1
# writes the time-outs for hosts that are far apart, as in geo.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${STEELDB_IMAGE:=steeldb:latest}" "${STEELDB_SUBNET:=10.74}" "${STEELDB_MASTER:=}" "${STEELDB_HEAVY:=}" "${STEELDB_WIDE_AREA:=}"
kind=${1:-}
regions="oregon ireland sydney sao-paulo virginia"
case "$kind" in
local) proxies=2 hosts=replica-0:7400,replica-1:7400,replica-2:7400,replica-3:7400 ;;
geo)
    : "${STEELDB_MASTER:=0}" "${STEELDB_HEAVY:=0, 4}"
    STEELDB_WIDE_AREA=1 proxies=5
    hosts=oregon.steeldb:7400,ireland.steeldb:7401,sydney.steeldb:7402,sao-paulo.steeldb:7403,virginia.steeldb:7404
    ;;
host)
    hosts=${2:?the hosts of the replicas, comma-separated}
    proxies=$(echo "$hosts" | tr ',' '\n' | grep -c .)
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
conf=$here/$kind/conf
if [ -e "$conf" ]; then
    echo "$conf exists: nothing is overwritten" >&2
    exit 1
fi

# In the container, as root: what it writes is then given to the containers' user. Standard input is the password.
# shellcheck disable=SC2016
make='
set -eu
umask 077
kind=$1 hosts=$2 proxies=$3 subnet=$4 regions=$5 master=$6 heavy=$7 wide=$8
cd /conf
# The health check asks where metrics are told, at an address that nobody outside the container reaches.
set -- --dir . --host "$hosts" --proxies "$proxies" --listen 0.0.0.0:6432 --metrics
[ -z "$wide" ] || set -- "$@" --wide-area
steeldb init "$@" >/dev/null
[ -z "$master" ] || sed -i "s|^master = .*|master = $master|" replica-*/replica.toml proxy-*/proxy.toml
[ -z "$heavy" ] || sed -i "s|^heavy = .*|heavy = [$heavy]|" replica-*/replica.toml proxy-*/proxy.toml
read -r password
[ -n "$password" ] || password=$(od -An -N16 -tx1 /dev/urandom | tr -d " \n")
printf "%s\n" "$password" >app.password
id=0
for address in $(echo "$hosts" | tr "," " "); do
    port=7400
    case "$kind" in geo) port=${address##*:} ;; esac
    sed -i "0,/^#listen = /s|^#listen = .*|listen = \"0.0.0.0:$port\"|
            s|^key_file = .*|key_file = \"/run/secrets/replica.key\"|
            s|^cluster_key_file = .*|cluster_key_file = \"/run/secrets/cluster.key\"|
            s|^data_dir = .*|data_dir = \"/var/lib/steeldb\"|
            s|^shared_buffers_mb = .*|shared_buffers_mb = ${SHARED_BUFFERS_MB:-128}|" "replica-$id/replica.toml"
    id=$((id + 1))
done
number=1
while [ "$number" -le "$proxies" ]; do
    steeldb proxy-password --users "proxy-$number/users" app <app.password >/dev/null
    sed -i "s|^key_file = .*|key_file = \"/run/secrets/proxy.key\"|
            s|^method = .*|method = \"scram-sha-256\"|
            s|^#users_file = .*|users_file = \"/run/secrets/users\"|" "proxy-$number/proxy.toml"
    number=$((number + 1))
done
if [ "$kind" = geo ]; then
    mkdir wan
    region=1
    for from in $regions; do
        port=7400
        for to in $regions; do
            if [ "$from" != "$to" ]; then
                printf "[[relay]]\nfrom = \"%s\"\nto = \"%s\"\nlisten = \"%s.%s.254:%s\"\ntarget = \"replica-%s:%s\"\n\n" \
                    "$from" "$to" "$subnet" "$region" "$port" "$to" "$port" >>wan/relays.toml
            fi
            port=$((port + 1))
        done
        region=$((region + 1))
    done
fi
# Passable, so that whoever starts the containers finds the files; each is readable by its owner alone.
find . -type d -exec chmod 0711 {} +
chown -R 7400:7400 .
'
mkdir -p "$conf"
printf '%s\n' "${STEELDB_PASSWORD:-}" | docker run --rm -i --network none --user 0 --entrypoint sh -v "$conf:/conf" \
    -e SHARED_BUFFERS_MB="${SHARED_BUFFERS_MB:-128}" "$STEELDB_IMAGE" \
    -c "$make" make "$kind" "$hosts" "$proxies" "$STEELDB_SUBNET" "$regions" \
    "$STEELDB_MASTER" "$STEELDB_HEAVY" "$STEELDB_WIDE_AREA"
echo "$conf is ready; administrator.key in it belongs on neither a replica's nor a proxy's host"
