#!/bin/sh
# Powers one lab host on. `boot.sh HOSTDIR` is the power supply: it runs one boot after another until the host powers
# off. `boot.sh HOSTDIR inside` is one boot, in mount, PID and network namespaces of its own: when its first process
# dies, the kernel takes away every process, mount and link of the host at once. That is also what a power cut is.
set -eu
dir=$1
. "$dir/boot.env"

if [ "${2:-}" != inside ]; then
    rebooting=133 # what systemd-nspawn exits with when the host asked for a reboot
    while :; do
        code=0
        unshare --mount --pid --net --fork --kill-child=KILL --mount-proc --propagation slave \
            /bin/sh "$dir/boot.sh" "$dir" inside </dev/null >>"$dir/console.log" 2>&1 || code=$?
        for hierarchy in $LAB_HIERARCHIES; do
            find "$hierarchy/$LAB_MACHINE" -depth -type d -exec rmdir {} + 2>/dev/null || true
        done
        [ "$code" = "$rebooting" ] || exit 0
    done
fi

# A cgroup of its own in every hierarchy: else the systemds of all hosts would manage one and the same tree.
for hierarchy in $LAB_HIERARCHIES; do
    group=$hierarchy/$LAB_MACHINE
    if [ -e "$hierarchy/cgroup.subtree_control" ]; then
        for controller in $(cat "$hierarchy/cgroup.controllers"); do
            echo "+$controller" >"$hierarchy/cgroup.subtree_control" 2>/dev/null || true
        done
    fi
    mkdir -p "$group"
    if [ -e "$hierarchy/cpuset.cpus" ]; then # version 1 refuses processes until these are set
        cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
    fi
    echo 0 >"$group/cgroup.procs"
done

# The cable: one end here, the other in the lab's switch. A partitioned host boots unplugged.
ip -n "$LAB_SWITCH" link delete "$LAB_HOST" 2>/dev/null || true
ip -n "$LAB_SWITCH" link add "$LAB_HOST" type veth \
    peer name eth0 address "$LAB_MAC" netns "/proc/$$/ns/net" # a new one each boot would leave neighbours with the old
ip link set lo up
ip address add "$LAB_ADDRESS" dev eth0
ip link set eth0 up
ip route add default via "$LAB_GATEWAY"
ip -n "$LAB_SWITCH" link set "$LAB_HOST" up
[ -e "$dir/cut" ] || ip -n "$LAB_SWITCH" link set "$LAB_HOST" master br0

mount -t overlay overlay -o "lowerdir=$LAB_BASE,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
mount -t tmpfs tmpfs /run # systemd-nspawn leaves directories in /run: in this one they vanish with the host

export SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes
[ "$LAB_CGROUP" = 2 ] || export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=no
code=0
systemd-nspawn --quiet --register=no --keep-unit --machine="$LAB_MACHINE" --hostname="$LAB_HOST" \
    --directory="$dir/root" --network-namespace-path="/proc/$$/ns/net" --resolv-conf=off --timezone=off \
    --link-journal=no --bind="$dir/containers:/var/lib/containers" --bind="$dir/homes:/home" --capability=all \
    --system-call-filter='@keyring bpf' --boot || code=$?
exit "$code"
