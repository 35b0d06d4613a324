"""Which host keys are trusted: known_hosts files in OpenSSH's format, fingerprints, and recording trust.

In: our own file (written by `sshoal node trust`, nothing else) and files that are only read, such as ~/.ssh/known_hosts.
Out: the keys trusted for one address. No network; nothing is ever trusted here without being asked to.

Format after sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": markers @cert-authority and @revoked, host lists with *, ? and !,
[host]:port for ports other than 22, and hashed names |1|salt|HMAC-SHA1|.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from controller.act.userpath import user_path

SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class HostKey:
    """One public key: its type ("ssh-ed25519") and the base64 text of its blob."""

    type: str
    base64: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: SHA256:…"""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.type})"


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is known of one address."""

    keys: tuple[HostKey, ...] = ()
    authorities: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.authorities)


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    marker: str
    hosts: str
    key: HostKey | None


class KnownHosts:
    """Our own file first; `also` are consulted only for addresses that it does not name, but a key revoked anywhere is revoked."""

    def __init__(self, own: Path, also: Sequence[Path] = ()) -> None:
        self._own = own
        self._also = tuple(also)
        self._cache: dict[Path, tuple[tuple[int, int], tuple[_Line, ...]]] = {}

    def trusted(self, host: str, port: int, inventorys: Sequence[str] = ()) -> Trusted:
        """Keys for `host` (an address or name as the inventory gives it) at `port`.

        Args:
            inventorys: files that the inventory names for this host (UserKnownHostsFile): read after our own, before the others.
        Raises: OSError for an unreadable file.
        """
        name = _token(host, port)
        revoked: list[HostKey] = []
        found = Trusted()
        for path in (self._own, *(user_path(name) for name in inventorys), *self._also):
            here = [line for line in self._lines(path) if line.key and _matches(line.hosts, name)]
            revoked += [line.key for line in here if line.key and line.marker == "@revoked"]
            if not found:
                found = Trusted(
                    keys=tuple(line.key for line in here if line.key and not line.marker),
                    authorities=tuple(line.key for line in here if line.key and line.marker == "@cert-authority"),
                )
        return Trusted(
            keys=tuple(key for key in found.keys if key not in revoked),
            authorities=tuple(key for key in found.authorities if key not in revoked),
            revoked=tuple(revoked),
        )

    def trust(self, host: str, port: int, keys: Sequence[HostKey]) -> None:
        """Records `keys` as the keys of this address in our own file, in place of what that file said of it."""
        name = _token(host, port)
        self._own.parent.mkdir(parents=True, exist_ok=True)
        directory = os.open(self._own.parent, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            kept = [line.text for line in self._lines(self._own) if line.marker or not _names_only(line.hosts, name)]
            kept += [f"{name} {key.type} {key.base64}" for key in keys]
            _replace(self._own, "".join(f"{line}\n" for line in kept))
            os.fsync(directory)
        finally:
            os.close(directory)

    def _lines(self, path: Path) -> tuple[_Line, ...]:
        try:
            status = path.stat()
        except FileNotFoundError:
            return ()
        stamp = (status.st_mtime_ns, status.st_size)
        cached = self._cache.get(path)
        if cached is None or cached[0] != stamp:
            text = path.read_text(encoding="utf-8", errors="replace")
            cached = (stamp, tuple(_parse(line) for line in text.splitlines()))
            self._cache[path] = cached
        return cached[1]


def _token(host: str, port: int) -> str:
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


def _parse(text: str) -> _Line:
    """A line without a usable key (comment, blank, broken) is kept as text and never matches."""
    words = text.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return _Line(text, marker, "", None)
    try:
        base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return _Line(text, marker, "", None)
    return _Line(text, marker, words[0], HostKey(words[1], words[2]))


def _matches(hosts: str, name: str) -> bool:
    if hosts.startswith("|"):
        return _hash_matches(hosts, name)
    matched = False
    for pattern in hosts.lower().split(","):
        if _pattern_matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _pattern_matches(pattern: str, name: str) -> bool:
    # Only * and ? are wild here; a [ belongs to [host]:port.
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _hash_matches(hashed: str, name: str) -> bool:
    parts = hashed.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, wanted = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)


def _names_only(hosts: str, name: str) -> bool:
    return hosts.lower() == name or (hosts.startswith("|") and _hash_matches(hosts, name))


def _replace(path: Path, text: str) -> None:
    """Writes beside and renames: a full disk or a crash leaves the old file whole. mkstemp makes it 0600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
