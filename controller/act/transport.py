"""How hosts are reached: the interfaces, and the one retry policy. Implementations: ssh.py and
paramiko_transport.py behind transports.py, and the simulation's.

A Transport makes Sessions (one authenticated connection to one host); a Session runs scripts and opens Channels (raw byte streams to
the agent's socket). Whatever goes wrong with a host is a HostError of controller.model.errors; nothing else leaves this layer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from controller.model.errors import HostAuthFailed, HostUnreachable
from controller.model.inventory import Host

OUTPUT_BYTES_MAX = 8 * 1024 * 1024  # of one script; more is an error, not a truncation that looks like an answer

T = TypeVar("T")


class Channel(Protocol):
    """A byte stream to the agent's socket. Not to be shared: one conversation each."""

    async def read(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. HostUnreachable when the connection broke."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. HostUnreachable when the connection broke."""
        ...

    def close(self) -> None:
        """Ends it now; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Completed:
    """A script that ended. `exit_code` is 128 + n when signal n ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class AgentPlaces:
    """Where the agent is on a host. `directory` may be relative to the login user's home; `{uid}` in `socket` stands for his id."""

    socket: str = "/run/sshoal/agent.sock"
    directory: str = "/var/lib/sshoal/agent"  # versions/<sha256>/, current → versions/<sha256>

    @property
    def current(self) -> str:
        return f"{self.directory}/current"


ROOTLESS_PLACES = AgentPlaces("/run/user/{uid}/sshoal/agent.sock", ".local/share/sshoal/agent")


class Session(Protocol):
    """One authenticated connection to one host."""

    @property
    def host_name(self) -> str:
        """The host's name in the inventory."""
        ...

    @property
    def host_key(self) -> str:
        """The fingerprint of the key that the host has proved to have: "SHA256:…"."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the connection is known to have ended."""
        ...

    async def run(self, script: str, *, stdin: bytes = b"", become: bool, timeout_s: float) -> Completed:
        """Runs a /bin/sh script on the host.

        The script travels over standard input, before `stdin`: nothing of it is in an argument list. What the login shell prints
        before is dropped (a random marker separates it).

        Args:
            become: as the become user of the inventory (root unless said otherwise) rather than the login user.
        Raises: HostUnreachable (broken, or no end within `timeout_s`), HostNotReady (no shell, sudo refuses),
            HostError (more than OUTPUT_BYTES_MAX of output).
        """
        ...

    async def open_channel(self, timeout_s: float) -> Channel:
        """A new stream to the agent's socket. Raises HostUnreachable, HostNotReady (no agent, or sudo refuses)."""
        ...

    async def close(self) -> None:
        """Ends the connection and all that runs over it; may be called twice."""
        ...


class Transport(Protocol):
    async def connect(self, host: Host) -> Session:
        """Raises HostUnreachable, HostAuthFailed, HostKeyUnknown, HostKeyChanged, HostNotReady."""
        ...


class Throttled(HostUnreachable):
    """The server hung up before it said who it is: MaxStartups, PerSourcePenalties, fail2ban. Another try soon may do."""


class LoginRefused(HostAuthFailed):
    """The server itself said no: each further attempt brings a ban nearer (fail2ban, PerSourcePenalties)."""


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Runs `attempt` until it is not Throttled, at most ATTEMPTS times, with growing random pauses; raises what the last one raised.

    The only retry below the loop, and only for what is known to pass: a wrong password must never be tried twice (bans), and an
    unreachable host is tried again by the next pass.
    """

    async def once() -> T:  # tenacity awaits only what is visibly a coroutine function
        return await attempt()

    return await _POLICY.copy()(once)


ATTEMPTS = 7
_POLICY = AsyncRetrying(
    retry=retry_if_exception_type(Throttled),
    wait=wait_random_exponential(multiplier=0.2, max=4),
    stop=stop_after_attempt(ATTEMPTS),
    reraise=True,
)
