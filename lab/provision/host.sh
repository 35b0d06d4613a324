#!/bin/sh
# Makes a bare Debian 12 machine a lab host: what Podman needs, and two logins by key.
# Usage, as root: host.sh ROOT_PUBLIC_KEY USER_PUBLIC_KEY. Can be run again.
set -eu
root_key=${1:?the public key that may log in as root}
user_key=${2:?the public key that may log in as ubuntu}

packages='
systemd systemd-sysv dbus libpam-systemd openssh-server sudo python3
podman crun netavark aardvark-dns catatonit uidmap slirp4netns
iproute2 iptables nftables kmod procps ca-certificates curl busybox-static cron
'

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $packages

id ubuntu >/dev/null 2>&1 || useradd --create-home --shell /bin/bash ubuntu
echo 'ubuntu ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/sshoal-lab
chmod 440 /etc/sudoers.d/sshoal-lab

let_in() { # user, home, key
    install -d -m 700 -o "$1" -g "$1" "$2/.ssh"
    grep -qxF "$3" "$2/.ssh/authorized_keys" 2>/dev/null || echo "$3" >>"$2/.ssh/authorized_keys"
    chown "$1:$1" "$2/.ssh/authorized_keys"
    chmod 600 "$2/.ssh/authorized_keys"
}
let_in root /root "$root_key"
let_in ubuntu /home/ubuntu "$user_key"

if [ -d /run/systemd/system ]; then
    systemctl enable --now ssh.service podman.socket
else
    systemctl enable ssh.service podman.socket
fi
