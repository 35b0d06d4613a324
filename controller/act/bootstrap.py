"""Hosts become nodes, and stop being nodes: preflight, push of the agent, forget.

In: a Session and the Bundle. Out: HostFacts, Pushed, or a HostNotReady that says what to do. Each is one script on the host, as root (as
the login user for a rootless agent), that may be repeated after being cut anywhere. onhost_install.py is the script of push; what it prints
is believed no further than its shape.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.act import rootless_host
from controller.act.agents import AgentClient
from controller.act.bundle import Bundle, build
from controller.act.transport import ROOTLESS_PLACES, AgentPlaces, Completed, Session
from controller.model.errors import HostError, HostNotReady
from controller.model.inventory import Host
from controller.model.text import printable
from nodeagent.protocol import ForgetRequest, Hello

if TYPE_CHECKING:
    from controller.model.fitness import HostFacts

SERVICE = "sshoal-agent.service"
COME_UP_TIMEOUT_S = 45.0  # an old agent may take 30 s to end
PUSH_TIMEOUT_S = 240.0  # unpacking, the new agent's start, and if need be the old one's
REMOVE_TIMEOUT_S = 120.0
PARALLEL_MAX = 8
PLACES = AgentPlaces()


@dataclass(frozen=True, slots=True)
class Pushed:
    """`changed`: this push put the agent there; False: it was there and answered."""

    changed: bool


async def preflight(session: Session, host: Host) -> HostFacts:
    """Whether this host can be a node, in one round trip.

    Raises HostNotReady with all that keeps it from serving, and what to do about the first; HostUnreachable.
    """
    from controller.act.examine import examine  # only for hosts that get an agent
    from controller.model.fitness import Severity

    examined = await examine(session, host)
    wrong = [finding for finding in examined.findings if finding.severity is Severity.FAILS]
    if wrong:
        hint = wrong[0].hint if len(wrong) == 1 else f"sshoal node check {host.name} says what to do about each"
        raise HostNotReady(session.host_name, "; ".join(finding.problem for finding in wrong), hint=hint)
    return examined.facts


async def push(session: Session, bundle: Bundle, host: Host) -> Pushed:
    """Puts the agent of `bundle` in charge on the host: one round trip when it is already, else the archive follows.

    Returns when that very agent answers on the host. Pods are not touched. Raises HostNotReady when it cannot be installed, AgentNotUp
    when it does not come up (the former agent is in charge again then, and the message says so), HostUnreachable.
    """
    if host.connection.rootless:
        await rootless_host.ensure_linger(session, host)
    answer = await _install(session, bundle, host, b"")
    if answer.get("needs") == "archive":
        answer = await _install(session, bundle, host, bundle.packed)
    if answer.get("error"):
        raise _push_error(host, answer)
    if not isinstance(answer.get("changed"), bool):
        raise HostError(session.host_name, "the push answers nonsense")
    return Pushed(answer["changed"])


class AgentDeployer:
    """The fleet's Deployer: this installation's agent, built when first asked for. Another cluster's agents are not replaced."""

    def __init__(self, cache: Path | None, cluster: Callable[[], str]) -> None:
        self._cache = cache
        self._cluster = cluster

    def may_stay(self, hello: Hello) -> bool:
        foreign = hello.owner is not None and hello.owner.cluster != self._cluster()
        return foreign or hello.bundle == self._built.digest

    async def deploy(self, session: Session, host: Host) -> None:
        await preflight(session, host)
        await push(session, self._built, host)

    @cached_property
    def _built(self) -> Bundle:
        return build(self._cache)


async def push_all(targets: Sequence[tuple[Session, Host]], bundle: Bundle) -> dict[str, Pushed | HostError]:
    """Preflight and push on every host: until one succeeded one at a time (the canary), then the others, at most PARALLEL_MAX at once.

    A bundle that does not come up on the canary goes nowhere else. An unreachable or unfit canary only passes the part on.
    """
    results: dict[str, Pushed | HostError] = {}
    waiting = list(targets)
    while waiting:
        session, host = waiting.pop(0)
        results[host.name] = result = await _try_push(session, host, bundle)
        if isinstance(result, Pushed):
            break
        if isinstance(result, AgentNotUp):
            not_tried = f"not tried, since the agent did not come up on {host.name}"
            results.update((other.name, HostNotReady(other.name, not_tried)) for _, other in waiting)
            return results
    slots = asyncio.Semaphore(PARALLEL_MAX)

    async def bounded(session: Session, host: Host) -> None:
        async with slots:
            results[host.name] = await _try_push(session, host, bundle)

    await asyncio.gather(*(bounded(session, host) for session, host in waiting))
    return results


class AgentNotUp(HostNotReady):
    """The agent that was pushed did not answer; what push_all decides on."""


async def forget(
    session: Session, request: ForgetRequest | None, *, cluster: str = "", rootless: bool = False, timeout_s: float
) -> None:
    """Takes everything of ours off the host: pods, units, agent, state, network. Linger of a rootless agent's user stays as it is.

    Args:
        request: who asks; the agent stops its pods first, each with its grace. None, for a host without a working agent: they are
            removed without it.
        cluster: whose host it is; where another one's containers are, which need this agent and its files, nothing is removed. "": any.
    Raises AgentRefused (another cluster's), HostNotReady (what could not be removed), HostUnreachable.
    """
    if request is not None:
        client = AgentClient(session.host_name, await session.open_channel(timeout_s))
        try:
            await client.forget(request, timeout_s)
        finally:
            client.close()
    done = await session.run(removal(rootless, cluster), become=not rootless, timeout_s=REMOVE_TIMEOUT_S)
    left = done.stdout.decode("utf-8", "replace").split()
    if left and left[0] == _THEIRS:
        names = printable(", ".join(left[1:]), 200)
        raise HostNotReady(session.host_name, f"nothing is removed: these containers are of another cluster: {names}")
    if left or done.exit_code != 0:
        said = printable(done.stderr)
        raise HostNotReady(
            session.host_name,
            f"not all could be removed: {printable(' '.join(left), 200)} {said}".rstrip(),
            hint="mend the cause on the host, then forget it again",
        )


# ---- push -----------------------------------------------------------------------------------------------------------


async def _try_push(session: Session, host: Host, bundle: Bundle) -> Pushed | HostError:
    try:
        await preflight(session, host)
        return await push(session, bundle, host)
    except HostError as error:
        return error


async def _install(session: Session, bundle: Bundle, host: Host, packed: bytes) -> dict[str, Any]:
    python, rootless = host.connection.python, host.connection.rootless
    places = ROOTLESS_PLACES if rootless else PLACES
    request = {
        "digest": bundle.digest,
        "size": len(packed),
        "units": {name: unit_text(text, python, rootless=rootless) for name, text in bundle.units.items()},
        "service": SERVICE,
        "directory": places.directory,
        "socket": places.socket,
        "wait_s": COME_UP_TIMEOUT_S,
    }
    stdin = json.dumps(request).encode() + b"\n" + packed
    timeout_s = PUSH_TIMEOUT_S * host.connection.patience
    done = await session.run(installation(python), stdin=stdin, become=not rootless, timeout_s=timeout_s)
    return _answer(session.host_name, done)


def installation(python: str) -> str:
    """The script that installs what standard input carries.

    Neither this one nor `removal` has here-documents: bash before 5.1 keeps them in /tmp, which may be full.
    """
    program = resources.files("controller.act").joinpath("onhost_install.py").read_text(encoding="utf-8")
    return f"exec {_quoted(python)} -I -c {_quoted(program)}\n"


def unit_text(template: str, python: str, *, rootless: bool) -> str:
    """A unit of the system, or of the user's own manager, whose home is %h. {podman} is for the host to fill in."""
    directory = f"%h/{Path(ROOTLESS_PLACES.directory).parent}" if rootless else str(Path(PLACES.directory).parent)
    target = "default.target" if rootless else "multi-user.target"
    return template.replace("{python}", python).replace("{directory}", directory).replace("{target}", target)


def _answer(host_name: str, done: Completed) -> dict[str, Any]:
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        said = printable(done.stderr[-1000:]) or f"exit code {done.exit_code}"
        raise HostNotReady(host_name, f"the agent could not be installed: {said}")
    return answer


def _push_error(host: Host, answer: Mapping[str, Any]) -> HostNotReady:
    host_name = host.name
    error = printable(str(answer["error"]))
    if "journal" not in answer:
        return HostNotReady(host_name, f"the agent could not be installed: {error}")
    journal = printable(str(answer["journal"])[-1500:], 600)
    state = "the former agent is in charge again" if answer.get("returned") is True else "no agent is in charge now"
    return AgentNotUp(
        host_name,
        f"{error}; {state}. Its journal ends: {journal or 'empty'}",
        hint=f"on the host: journalctl {'--user ' if host.connection.rootless else ''}-u {SERVICE}",
    )


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


# ---- forget ---------------------------------------------------------------------------------------------------------


def removal(rootless: bool, cluster: str = "") -> str:
    """The script that takes all of ours off a host. It prints what is left, nothing when all is gone."""
    whose = f"cluster={_quoted(cluster)} theirs={_THEIRS}\n"
    return (_OF_USER if rootless else _OF_ROOT) + whose + _REMOVE.replace("{unmount}", _quoted(_UNMOUNT))


_THEIRS = "theirs:"  # said first, before the names of another cluster's containers


_OF_ROOT = """systemctl=systemctl units_in=/etc/systemd/system state=/var/lib/sshoal run=/run/sshoal inside=
"""
# In Podman's namespaces an ordinary user may remove what his containers own.
_OF_USER = """XDG_RUNTIME_DIR=/run/user/$(id -u)
export XDG_RUNTIME_DIR
cd || exit 1
systemctl='systemctl --user' units_in=$HOME/.config/systemd/user state=$HOME/.local/share/sshoal run=$XDG_RUNTIME_DIR/sshoal
command -v podman >/dev/null && inside='podman unshare'
"""
# Containers and the network are ours by label.
_REMOVE = """PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 3>&1 1>&2
units='sshoal-agent.service sshoal-podman.service'
if [ -n "$cluster" ] && command -v podman >/dev/null; then
    all=$(podman ps --all --filter label=sshoal.dev/cluster --format '{{.Names}}')
    ours=$(podman ps --all --filter "label=sshoal.dev/cluster=$cluster" --format '{{.Names}}')
    others=$(printf '%s\n' "$all" | grep -vxF -e "$ours")
    [ -z "$others" ] || { echo "$theirs" "$others" >&3; exit 0; }
fi
if [ -d /run/systemd/system ]; then
    $systemctl disable --now sshoal-agent.service 2>/dev/null # first: it would start its pods again
fi
if command -v podman >/dev/null; then
    pods=$(podman pod ps --quiet --filter label=sshoal.dev/cluster)
    [ -z "$pods" ] || podman pod rm --force --time 5 $pods >/dev/null
    containers=$(podman ps --all --quiet --filter label=sshoal.dev/cluster)
    [ -z "$containers" ] || podman rm --force --time 5 $containers >/dev/null
    networks=$(podman network ls --quiet --filter label=sshoal.dev/cluster)
    [ -z "$networks" ] || podman network rm $networks >/dev/null
fi
if [ -d /run/systemd/system ]; then
    $systemctl disable --now sshoal-podman.service 2>/dev/null
fi
for unit in $units; do rm -f "$units_in/$unit"; done
[ -z "$inside" ] || rmdir "$units_in" "${units_in%/*}" 2>/dev/null # of a user who had no units before
if [ -d /run/systemd/system ]; then
    for unit in $units; do $systemctl reset-failed "$unit" 2>/dev/null; done
    $systemctl daemon-reload
    for unit in $units; do $systemctl reset-failed "$unit" 2>/dev/null; done
fi
$inside sh -c {unmount} sshoal "$state" "$run"
if [ -n "$inside" ]; then # what serves outlives what systemd knows of it, once that was killed
    for process in /proc/[0-9]*; do
        tr '\\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q "service .*unix://$run/podman.sock" && kill "${process#/proc/}"
    done
    # Podman's pause process stays in the unit that started it, and the unit with it. Without containers nobody needs it.
    [ -n "$(podman ps --all --external --quiet)" ] || podman system migrate
    $systemctl daemon-reload # which also looks what units have no process any more
fi
for path in "$state" "$run"; do [ ! -e "$path" ] || echo "$path" >&3; done
if command -v podman >/dev/null; then
    podman ps --all --filter label=sshoal.dev/cluster --format '{{.Names}}' >&3
    podman network ls --filter label=sshoal.dev/cluster --format 'network:{{.Name}}' >&3
fi
exit 0
"""
_UNMOUNT = """
awk -v state="$1/" -v run="$2/" 'index($2 "/", state) == 1 || index($2 "/", run) == 1 { print $2 }' /proc/mounts | sort -r |
while read -r mounted; do umount "$mounted"; done
rm -rf --one-file-system "$1" "$2"
"""
