"""`sshoal init USER@HOST …`: from addresses to nodes in one command. Writes the inventory, trusts, checks, pushes the agent.

Repeating it is harmless: what is done already is found done.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller.act.userpath import user_path

if TYPE_CHECKING:
    from controller.act.bootstrap import Pushed
    from controller.cli.wiring import Wiring
    from controller.model.errors import HostError
    from controller.model.inventory import Host

_TARGET = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """One host as the user named it."""

    name: str
    address: str
    user: str
    port: int


def begin(hosts: Sequence[str], *, key: str, become: bool, output: str, yes: bool, context_dir: str) -> None:
    """All of `init`. Raises UsageError when nothing was done, HostNotReady when some hosts did not become nodes."""
    from controller.act.settings import remember_inventory
    from controller.cli.running import run
    from controller.cli.wiring import Wiring
    from controller.model.errors import HostNotReady

    path = user_path(output).absolute()
    text = inventory_text([parse_target(word) for word in hosts], key=_key(key), become=become)
    written = _write(path, text)
    nodes: list[str] = []
    try:
        wiring = Wiring.of(context_dir, [str(path)])
        named = wiring.inventory().hosts
        nodes = run(_make_nodes(wiring, list(named.values()), yes))
    finally:
        if written and not nodes:  # else a corrected command would be refused for what a mistaken one wrote
            path.unlink(missing_ok=True)
    if nodes:
        print(f"{path} {'written' if written else 'is as it shall be'}")
        remember_inventory(wiring.context)
    left = [name for name in named if name not in nodes]
    if left:
        raise HostNotReady(
            ", ".join(left),
            f"not made {'nodes' if len(left) > 1 else 'a node'}; {len(nodes)} of {len(named)} are ready",
            hint="mend what is said above and run the same command again",
        )
    print("\nnext: sshoal apply -f web.yaml     (any Kubernetes Deployment)")
    print("      sshoal get nodes -o wide")


def parse_target(text: str) -> Target:
    """ "ubuntu@b.example.com:2222" → its parts; the name is the host part as an inventory and a node can have it. Raises UsageError."""
    from controller.model.errors import UsageError

    found = _TARGET.fullmatch(text)
    port = int(found["port"] or 22) if found else 0
    if found is None or not 0 < port < 65536:
        raise UsageError(f"{text!r} names no host", hint="for example root@192.0.2.10 or ubuntu@web1.example.com:2222")
    address = found["host"].strip("[]")
    name = re.sub(r"[^a-z0-9.-]", "-", address.lower()).strip("-.")
    return Target(name, address, found["user"] or "", port)


def inventory_text(targets: Sequence[Target], *, key: str, become: bool) -> str:
    """An INI inventory with the group [nodes]. Raises UsageError when two targets have one name."""
    from controller.model.errors import UsageError

    lines = ["# Written by `sshoal init`. Ansible reads it too.", "[nodes]"]
    names: set[str] = set()
    for target in targets:
        if target.name in names:
            raise UsageError(f"{target.name} is named twice")
        names.add(target.name)
        words = [target.name]
        if target.address != target.name:
            words.append(f"ansible_host={target.address}")
        if target.port != 22:
            words.append(f"ansible_port={target.port}")
        if target.user:
            words.append(f"ansible_user={target.user}")
        if become or target.user not in ("", "root"):
            words.append("ansible_become=true")
        lines.append(" ".join(words))
    if key:
        lines += ["", "[nodes:vars]", f"ansible_ssh_private_key_file={key}"]
    return "\n".join(lines) + "\n"


def _key(file: str) -> str:
    from controller.model.errors import UsageError

    if not file:
        return ""
    path = user_path(file).absolute()
    if not path.is_file():
        raise UsageError(f"there is no key {path}", hint="ssh-keygen -t ed25519 makes one")
    if re.search(r"[\s'\"#\ud800-\udfff]", str(path)):
        raise UsageError(f"{path}: an inventory cannot hold this path", hint="one in UTF-8 without blanks and quotes")
    return str(path)


def _write(path: Path, text: str) -> bool:
    """Whether it had to be written. Raises UsageError rather than overwrite something else."""
    from controller.model.errors import UsageError

    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()  # else a half of it would stand in the way of the next try
                raise
        return True
    except FileExistsError:
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
            return False
        raise UsageError(
            f"{path} is there already and says something else",
            hint="add the hosts there by hand and run `sshoal node trust`, or give another --output",
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


async def _make_nodes(wiring: Wiring, hosts: Sequence[Host], yes: bool) -> list[str]:
    """Names of those that are nodes now; why others are not is told. Raises UsageError when their keys are not trusted."""
    from controller.cli.check import check_hosts, checks_text
    from controller.cli.output import Progress
    from controller.cli.trust import trust

    failed = {error.host for error in await trust(wiring, hosts, yes=yes, replace=False)}
    reachable = [host for host in hosts if host.name not in failed]
    line = Progress()
    line.show(f"checking {len(reachable)} hosts …")
    checks = await check_hosts(wiring, reachable)
    line.clear()
    if checks:
        print(checks_text(checks, "table"))
    fit = [host for host, check in zip(reachable, checks, strict=True) if check.result == "fit"]
    line.show(f"installing the agent on {len(fit)} hosts …")
    results = await _push(wiring, fit)
    line.clear()
    for name, result in results.items():
        _tell(name, result)
    nodes = [name for name, result in results.items() if not isinstance(result, Exception)]
    if nodes:
        await _first_pass(wiring)
    return nodes


async def _push(wiring: Wiring, hosts: Sequence[Host]) -> dict[str, Pushed | HostError]:
    from controller.act import bootstrap, bundle
    from controller.model.errors import HostError

    results: dict[str, Pushed | HostError] = {}
    async with wiring.transport() as transport:
        targets = []
        for host in hosts:
            try:
                targets.append((await transport.connect(host), host))
            except HostError as error:
                results[host.name] = error
        results |= await bootstrap.push_all(targets, bundle.build(wiring.context.cache))
        for session, _ in targets:
            await session.close()
    return results


def _tell(name: str, result: Pushed | HostError) -> None:
    from controller.cli.main import complain
    from controller.model.errors import HostError

    if isinstance(result, HostError):
        complain(result)
    else:
        print(f"✓ {name}: the agent {'is installed and answers' if result.changed else 'was there and answers'}")


async def _first_pass(wiring: Wiring) -> None:
    """Takes the hosts in as nodes of this cluster; a controller that is active does so by itself."""
    from controller.cli.carry import notes_of
    from controller.model.errors import AnotherController

    wiring.store  # noqa: B018  (made here)
    try:
        async with wiring.controller() as controller:
            done = await controller.one_pass()
    except AnotherController:
        return
    for note in notes_of(done):
        print(f"! {note}")
