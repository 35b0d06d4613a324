"""Asks one host for everything that its fitness depends on: one script, one round trip, nothing changed there.

In: a Session. Out: HostFacts and what model/fitness finds in them. The script prints lines "word value".
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from controller.act.transport import Session
from controller.model.fitness import Finding, judge
from controller.model.fitness import facts as known
from controller.model.fitness.facts import HostFacts
from controller.model.fitness.system import IMAGES, STATE, USER_IMAGES, USER_STATE
from controller.model.inventory import Host

GATHER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Examined:
    facts: HostFacts
    findings: tuple[Finding, ...]


async def examine(session: Session, host: Host, *, become: bool = True, asked_by: str | None = None) -> Examined:
    """What was found out and what it means. Without `become`, or on a rootless host, as the login user, who sees less.

    Args:
        asked_by: this cluster's id, where it matters whose agent is there; "" before there is a cluster.
    Raises HostUnreachable; HostNotReady (no shell, sudo refuses).
    """
    python, rootless = host.connection.python, host.connection.rootless
    asked_at_s = time.time()
    done = await session.run(
        script(python, rootless=rootless),
        become=become and not rootless,
        timeout_s=GATHER_TIMEOUT_S * host.connection.patience,
    )
    now_s = (asked_at_s + time.time()) / 2
    facts = known.parse(
        known.words_of(done.stdout),
        python_path=python,
        now_s=now_s,
        asked_by=asked_by,
        sudo_password=host.connection.become_password is not None,
        rootless=rootless,
        may_become=host.connection.become,
    )
    return Examined(facts, judge(facts))


def script(python: str, *, rootless: bool = False) -> str:
    """What is run on the host, by any POSIX shell. `rootless`: for an agent of the user who runs it, of whom more is asked."""
    asked = _SCRIPT.format(
        state=f'"$HOME/{USER_STATE}"' if rootless else STATE,
        images=f'"$HOME/{USER_IMAGES}"' if rootless else IMAGES,
        python=shlex.quote(python),
        modules=" ".join(known.MODULES),
        programs=" ".join(known.PROGRAMS),
        units=" ".join(known.UNITS),
        managers=" ".join(known.MANAGERS),
        sshd_options="|".join(known.SSHD_OPTIONS),
    )
    return asked + (_OF_USER.format(tools=" ".join(known.USER_TOOLS)) if rootless else "") + "exit 0\n"


# `command -v` and well-known directories, because a login's PATH is not what Podman searches.
_SCRIPT = """PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
say() {{ printf '%s %s\\n' "$1" "$(printf %s "$2" | tr '\\n' ' ' | cut -c 1-900)"; }}
found() {{ command -v "$1" >/dev/null 2>&1; }}
in_file() {{ grep -qs "$1" "$2"; }}

say uid "$(id -u)"
say sudo_user "$SUDO_USER"
say time "$(date +%s%N)"
say arch "$(uname -m)"
say kernel "$(uname -r)"
if [ -r /etc/os-release ]; then
    say system "$(. /etc/os-release; echo "$PRETTY_NAME")"
    say system_ids "$(. /etc/os-release; echo "$ID $ID_LIKE")"
fi
[ -e /run/ostree-booted ] && say image_based yes
managers=
for manager in {managers}; do found $manager && managers="$managers $manager"; done
say managers "$managers"
found dpkg && [ -n "$(dpkg --audit 2>/dev/null | head -n 1)" ] && say packages_unfinished yes
if [ -d /run/systemd/system ]; then
    say systemd yes
    active=
    for unit in {units}; do systemctl is-active --quiet $unit 2>/dev/null && active="$active $unit"; done
    say active_units "$active"
fi

[ -x {python} ] && say python_found yes
say python "$({python} -I -c 'import sys; print(*sys.version_info[:3], sep=".")' 2>/dev/null)"
say modules_missing "$({python} -I -c 'import sys
for name in sys.argv[1:]:
    try: __import__(name)
    except Exception: print(name)' {modules} 2>/dev/null)"

for program in {programs}; do
    path=
    [ $program = bridge ] || path=$(command -v $program) # a CNI plugin; iproute2 has a program of that name
    for directory in /usr/libexec/podman /usr/lib/podman /usr/local/libexec/podman /usr/local/lib/podman \\
        /usr/libexec/catatonit /usr/libexec/cni /usr/lib/cni /opt/cni/bin; do
        [ -z "$path" ] && [ -x $directory/$program ] && path=$directory/$program
    done
    case $path in /*) ;; *) continue ;; esac
    say path_$program "$path"
    case $program in bridge | apparmor_parser) ;; *) say version_$program "$("$path" --version 2>/dev/null </dev/null | head -n 1)" ;; esac
done

grep -qsE '^ *(helper_binaries_dir|conmon_path|runtime) *=' /etc/containers/containers.conf /etc/containers/containers.conf.d/*.conf &&
    say own_parts yes

for entry in state:{state} images:{images}; do
    directory=${{entry#*:}}
    while [ ! -e "$directory" ]; do
        directory=${{directory%/*}}
        [ -n "$directory" ] || directory=/
    done
    disk=$(df -Pk "$directory" 2>/dev/null | awk 'NR == 2 {{ print $4, $6 }}')
    options=$(awk -v mount="${{disk#* }}" '$2 == mount {{ options = $4 }} END {{ print options }}' /proc/mounts)
    say disk_${{entry%%:*}} "$disk $options"
done

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    say cgroups 2
    say controllers "$(cat /sys/fs/cgroup/cgroup.controllers)"
elif [ -d /sys/fs/cgroup/cpu ] || [ -d /sys/fs/cgroup/systemd ]; then
    say cgroups 1
    controllers=
    for name in cpu memory pids cpuset; do [ -e /sys/fs/cgroup/$name/cgroup.procs ] && controllers="$controllers $name"; done
    say controllers "$controllers"
fi

[ -r /sys/fs/selinux/enforce ] && say selinux "$(cat /sys/fs/selinux/enforce)"
# From container-selinux; or the kernel says that its policy has the type, which Debian's brings by itself.
knows() {{ (printf %s "$1" >/sys/fs/selinux/context) 2>/dev/null; }}
if [ -e /usr/share/containers/selinux/contexts ] || knows system_u:system_r:container_t:s0; then say selinux_policy yes; fi
# The last number of the kernel's answer is 1 where it only warns.
confines() {{ (exec 3<>/sys/fs/selinux/access && printf '%s %s %s ffffffff' "$1" "$1" "$(cat /sys/fs/selinux/class/process/index)" >&3 &&
    ! grep -q ' 1$' <&3) 2>/dev/null; }}
confines system_u:system_r:podman_t:s0 && say selinux_podman yes
[ -r /sys/module/apparmor/parameters/enabled ] && say apparmor "$(cat /sys/module/apparmor/parameters/enabled)"
in_file '^ENABLED=yes' /etc/ufw/ufw.conf && say ufw yes
in_file '^DEFAULT_FORWARD_POLICY="*ACCEPT' /etc/default/ufw && say ufw_forwards yes
policy=
found nft && policy=$(nft list chain ip filter FORWARD 2>/dev/null | sed -n 's/.*hook forward.*policy \\([a-z]*\\).*/\\1/p')
if [ -z "$policy" ] && [ -s /proc/net/ip_tables_names ]; then # asking for tables that are not there would make them
    policy=$(iptables -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p')
fi
say forward_policy "$policy"

sshd=$(command -v sshd) && "$sshd" -T -C "user=${{SUDO_USER:-$(id -un)}},host=localhost,addr=127.0.0.1" 2>/dev/null |
    grep -E '^({sshd_options}) ' | sed 's/^/sshd_/'
wanted={state}/documents/wanted
if [ -r "$wanted" ]; then
    say owner "$(head -c 2000 "$wanted" | sed -n 's/.*"owner":{{"cluster":"\\([^"]*\\)".*/\\1/p' | head -n 1)"
fi
[ -e /etc/systemd/system/sshoal-agent.service ] && say rootful_agent yes
for socket in /run/user/*/sshoal/agent.sock; do [ -S "$socket" ] && say rootless_agent "$socket"; done
"""
# Asked as the user whose the agent shall be.
_OF_USER = """user=$(id -un) uid=$(id -u)
say user "$user"
[ -d "/run/user/$uid" ] && say user_runtime_directory yes
[ -e "/var/lib/systemd/linger/$user" ] && say linger yes
for file in subuid subgid; do
    say $file "$(awk -F: -v name="$user" -v id="$uid" '$1 == name || $1 == id {{ n += $3 }} END {{ print n + 0 }}' /etc/$file 2>/dev/null)"
done
tools=
for tool in {tools}; do found $tool && tools="$tools $tool"; done
say user_tools "$tools"
(: <>/dev/net/tun) 2>/dev/null && say tun yes
say ports_from "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null)"
say user_namespaces_max "$(cat /proc/sys/user/max_user_namespaces 2>/dev/null)"
say user_namespaces_allowed "$(cat /proc/sys/kernel/unprivileged_userns_clone 2>/dev/null)"
say user_controllers "$(cat "/sys/fs/cgroup/user.slice/user-$uid.slice/user@$uid.service/cgroup.controllers" 2>/dev/null)"
[ -S "/run/user/$uid/bus" ] && say session_bus yes
for path in "$HOME/.config/containers/storage.conf" /etc/containers/storage.conf "$HOME/.local/share/containers/storage/overlay"; do
    [ -e "$path" ] && say overlay yes
done
found fuse-overlayfs && say overlay yes
"""
