#!/bin/sh
# One host of a crowd: mount and network namespaces with sshd and the real agent over an engine in memory, without systemd.
# Arguments: the switch's namespace, the host's name, its address, its directory, the agent's bundle (unpacked), Python.
# Ends with its first process, and everything in it then.
set -eu
if [ "${7:-}" != inside ]; then
    exec unshare --mount --net --pid --fork --kill-child=KILL --mount-proc --propagation private /bin/sh "$0" "$@" inside
fi
switch=$1 name=$2 address=$3 dir=$4 bundle=$5 python=$6
ip -n "$switch" link delete "$name" 2>/dev/null || true # of a host that has just ended
mac=$(printf 02:73:68:00:00:%02x "${address##*.}") # a new one each time would leave neighbours with the old
ip -n "$switch" link add "$name" type veth peer name eth0 address "$mac" netns "/proc/$$/ns/net"
ip -n "$switch" link set "$name" master br0 up
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /run/sshd /var/lib/sshoal/agent
chmod 700 /var/lib/sshoal
ln -s "$bundle" /var/lib/sshoal/agent/current
"$python" -m bench.onhost_crowd "$dir" "$(basename "$bundle")" >"$dir/agent.log" 2>&1 &
exec /usr/sbin/sshd -D -e -f "$dir/sshd_config" 2>"$dir/sshd.log"
