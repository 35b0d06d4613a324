#!/usr/bin/env bash
# Installs the Debian packages that a make target needs, and says first which. Argument: python | test | lab | vm.
set -euo pipefail
case $1 in
python) packages=(python3-venv) ;;
test) packages=(openssh-server openssh-client podman crun netavark catatonit iptables iproute2 procps busybox-static sudo zsh fish) ;;
lab) packages=(systemd-container mmdebstrap iproute2 nftables util-linux mount findutils openssh-client procps sudo podman crun netavark aardvark-dns iptables catatonit uidmap slirp4netns openssh-server libpam-systemd dbus curl busybox-static) ;;
vm) packages=(mmdebstrap qemu-system-x86 qemu-utils e2fsprogs openssh-client) ;;
*)
    echo "usage: packages.sh python|test|lab|vm" >&2
    exit 2
    ;;
esac

missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "please install (Debian's names): ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "needed: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "==> Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
# No service of a package shall start on this machine: the lab's hosts run their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
