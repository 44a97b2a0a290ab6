#!/bin/sh
# What one host gets of docker/host/conf, and nothing else: its replica, its proxy, compose.yml. As root, since keys belong to
# the containers' user.
#
#   docker/host/pack.sh NUMBER [FILE]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
number=${1:?the number of the host, from 0}
out=${2:-host-$number.tar}
umask 077
tar -C "$here" -cf "$out" --transform "s|^conf/replica-$number|conf/replica|" --transform "s|^conf/proxy-$((number + 1))|conf/proxy|" \
    compose.yml "conf/replica-$number" "conf/proxy-$((number + 1))"
echo "$out: for host $number alone; delete it here once it is there"
