"""Trusting host keys: what a server shows beside what is known, asked about, recorded. Used by `node trust` and `init`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from controller.model.errors import HostError, SshoalError, UsageError
from controller.model.inventory import Host

if TYPE_CHECKING:
    from controller.act.hops import ScannedKey
    from controller.act.transports import TransportByHost
    from controller.cli.wiring import Wiring

PARALLEL_MAX = 16
_JUMPS_MAX = 8


async def trust(wiring: Wiring, hosts: Sequence[Host], *, yes: bool, replace: bool) -> list[HostError]:
    """Shows all keys, asks once, records those that are new (and, with `replace`, those that have changed) → hosts that failed.

    Raises UsageError when the answer is no, when nobody can be asked, or when a key has changed and `replace` was not given;
    then nothing is recorded.
    """
    failures: dict[str, HostError] = {}
    async with wiring.transport() as transport:
        # A jump host comes before what is behind it: each round goes one server further.
        shown: set[tuple[str, int]] = set()
        for _ in range(_JUMPS_MAX):
            rest = [host for host in hosts if host.name not in failures]
            scans = await _scan_all(transport, rest, failures)
            scans = [(host, key) for host, key in scans if (key.host, key.port) not in shown]
            shown |= {(key.host, key.port) for _, key in scans}
            if not _ask(scans, failures, yes=yes, replace=replace):
                break
            _record(wiring, scans)
    for error in failures.values():
        _tell(error)
    return list(failures.values())


async def _scan_all(
    transport: TransportByHost, hosts: Sequence[Host], failures: dict[str, HostError]
) -> list[tuple[Host, ScannedKey]]:
    slots = asyncio.Semaphore(PARALLEL_MAX)

    async def scan(host: Host) -> ScannedKey | None:
        try:
            async with slots:
                return await transport.scan_host_key(host)
        except HostError as error:
            failures[host.name] = error
            return None

    found = await asyncio.gather(*map(scan, hosts))
    return [(host, key) for host, key in zip(hosts, found, strict=True) if key is not None]


def _ask(scans: Sequence[tuple[Host, ScannedKey]], failures: dict[str, HostError], *, yes: bool, replace: bool) -> bool:
    """Shows the keys → whether there is something to record."""
    from controller.cli.hosts import confirm
    from controller.cli.output import table

    if not scans:
        return False
    rows = [[host.name, _place(key), key.key.type, key.key.fingerprint, _word(key)] for host, key in scans]
    print(table(["HOST", "ADDRESS", "TYPE", "FINGERPRINT", "STATE"], rows))
    changed = [(host, key) for host, key in scans if _word(key) == "CHANGED"]
    for host, key in changed:
        known = ", ".join(map(str, key.trusted.keys))
        print(f"! {host.name}: the key at {_place(key)} has CHANGED: trusted was {known}; it shows {key.key}")
    if changed and not replace:
        raise UsageError(
            "a changed key is not recorded: it may be another machine",
            hint="was the host reinstalled? Compare on its console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then --replace",
        )
    for host, key in scans:
        if key.key in key.trusted.revoked:
            failures[host.name] = HostError(host.name, "it shows a key that is revoked here")
    fresh = {(key.host, key.port) for _, key in scans if not key.is_trusted}
    if not fresh:
        return False
    confirm(f"trust {'this key' if len(fresh) == 1 else f'these {len(fresh)} keys'}?", yes)
    return True


def _record(wiring: Wiring, scans: Sequence[tuple[Host, ScannedKey]]) -> None:
    from controller.act.hostkeys import KnownHosts

    known = KnownHosts(wiring.context.known_hosts)
    fresh = [key for _, key in scans if not key.is_trusted and key.key not in key.trusted.revoked]
    try:
        for key in fresh:
            known.trust(key.host, key.port, [key.key])
    except OSError as error:
        raise SshoalError(f"{wiring.context.known_hosts} cannot be written: {error.strerror}") from None
    print(f"trusted: {', '.join(sorted({_place(key) for key in fresh}))}")


def _word(key: ScannedKey) -> str:
    if key.key in key.trusted.revoked:
        return "REVOKED"
    if key.is_trusted:
        return "known"
    return "CHANGED" if key.trusted.keys else "new"


def _place(key: ScannedKey) -> str:
    return key.host if key.port == 22 else f"{key.host} port {key.port}"


def _tell(error: HostError) -> None:
    from controller.cli.main import complain

    complain(error)
