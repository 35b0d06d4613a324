"""What every Session does, whichever SSH library carries it: scripts with framed output, sudo, channels to the agent by `dial`.

In: scripts, bytes; from the library, what a host says. Out: Completed, Channels, or a HostError. Everything a host sends is bounded
here; what it says goes into messages only through printable(). ssh_session.py and paramiko_session.py give it their connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from controller.act.transport import (
    OUTPUT_BYTES_MAX,
    ROOTLESS_PLACES,
    AgentPlaces,
    Channel,
    Completed,
    Throttled,
    patiently,
)
from controller.model.errors import HostError, HostNotReady, HostUnreachable
from controller.model.inventory import Connection
from controller.model.text import printable

EXEC_SESSIONS_MAX = 8  # sshd's MaxSessions refuses the eleventh (FAULTS, fact 7); forwarded sockets do not count
NOISE_BYTES_MAX = 256 * 1024  # what rc files may print before the marker
PAUSE_READING_BYTES = 1024 * 1024  # a reader that does not keep up makes the host wait, not our memory grow
ID_TIMEOUT_S = 30.0
SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11, "PIPE": 13, "TERM": 15}


Tell = Callable[[bytes, bool], None]  # bytes that arrived, and whether on standard error


class Wire(Protocol):
    """A channel of an SSH library, as far as it is used here. Nothing blocks; what cannot be sent yet is kept."""

    def write(self, data: bytes) -> None:
        """Raises OSError when the other end is gone."""
        ...

    def write_eof(self) -> None: ...

    def abort(self) -> None:
        """Ends it now; may be called twice. The Taker is told."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Taker(Protocol):
    """Who is told what happens on a Wire, on the event loop's thread."""

    def opened(self, wire: Wire) -> None: ...

    def received(self, data: bytes, is_error: bool) -> bool:
        """Takes bytes in; False when that was too much."""
        ...

    def writing(self, allowed: bool) -> None: ...

    def exited(self, code: int) -> None: ...

    def end(self, error: Exception | None) -> None: ...


class FramedSession(ABC):
    """See transport.Session."""

    def __init__(
        self,
        host_name: str,
        connection: Connection,
        user: str,
        agent: AgentPlaces,
        exec_sessions_max: int = EXEC_SESSIONS_MAX,
    ) -> None:
        """`user`: who is logged in. `exec_sessions_max`: commands at a time; further ones wait."""
        self.host_name = host_name
        self._connection = connection
        self._agent = ROOTLESS_PLACES if connection.rootless else agent
        self._exec_slots = asyncio.Semaphore(exec_sessions_max)
        self._is_root = user == "root"
        self._owns_agent = self._is_root or connection.rootless
        self._agent_socket = ""
        self._may_forward = True

    async def run(self, script: str, *, stdin: bytes = b"", become: bool, timeout_s: float) -> Completed:
        return await self._run(script, stdin, None, become=become, timeout_s=timeout_s)

    async def stream(self, script: str, tell: Tell, *, become: bool, timeout_s: float) -> int:
        """As `run`, but what the script writes goes to `tell` as it arrives, without a bound; returns its exit code.

        When the time is over the connection's channel is closed; a script that writes nothing may then run on.
        """
        return (await self._run(script, b"", tell, become=become, timeout_s=timeout_s)).exit_code

    async def _run(self, script: str, stdin: bytes, tell: Tell | None, *, become: bool, timeout_s: float) -> Completed:
        nonce = secrets.token_hex(16)
        body = script.encode(errors="surrogateescape")  # what is not UTF-8 came so from a command line
        # `head -c` reads no byte too many, so that what follows the script is its standard input.
        shell = f'printf "\\nsshoal-{nonce}\\n"; printf "\\nsshoal-{nonce}\\n" >&2; eval "$(head -c {len(body)})"'
        output = ScriptOutput(f"\nsshoal-{nonce}\n".encode(), self._password_prompt(nonce, become), tell)
        command = self._command(["/bin/sh", "-c", shell], become=become, nonce=nonce)
        async with self._deadline(timeout_s), self._exec_slots, self._exec(command, output) as wire:
            await self._feed_password(wire, output, become=become)
            if not output.asked_again:  # else sudo would take lines of the script for further guesses
                with contextlib.suppress(OSError):  # it ended before it read everything: its exit code tells
                    wire.write(body + stdin)
                    wire.write_eof()
                await output.ended.wait()
        return self._completed(output, become=become)

    async def open_channel(self, timeout_s: float) -> Channel:
        async with self._deadline(timeout_s):
            if self._owns_agent and self._may_forward:
                forwarded = await self._forward()
                if forwarded is not None:
                    return forwarded
            return await self._dial()

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """See transport.Session."""

    @abstractmethod
    async def close(self) -> None:
        """See transport.Session."""

    @abstractmethod
    async def _try_start(self, command: str, taker: Taker) -> Wire:
        """A new session that runs `command`. Raises Throttled (no further session now) or HostUnreachable."""

    async def _forward(self) -> Channel | None:
        """The agent's socket through sshd; None when that is refused, which looks the same as a missing socket."""
        return None

    # ---- channels ---------------------------------------------------------------------------------------------------

    async def _socket(self) -> str:
        """The agent's socket. An ordinary user's lies below a directory named by his id, which the host is asked for once."""
        if not self._agent_socket:
            uid = ""
            if self._connection.rootless:
                said = (await self.run("id -u", become=False, timeout_s=ID_TIMEOUT_S)).stdout
                uid = said.decode("utf-8", "replace").strip()
                if not (uid.isascii() and uid.isdigit() and len(uid) < 20):
                    raise HostNotReady(self.host_name, f"`id -u` says no number there: {printable(uid, 80)}")
            self._agent_socket = self._agent.socket.replace("{uid}", uid)
        return self._agent_socket

    async def _dial(self) -> Channel:
        """The agent's own relay between its standard input and output and its socket, as the user who owns the agent."""
        nonce = secrets.token_hex(16)
        become = not self._connection.rootless
        words = [self._connection.python, "-I", self._agent.current, "dial", "--nonce", nonce]
        if not become:
            words = ["/bin/sh", "-c", f"cd && exec {shlex.join(words)}"]  # its directory is relative to the home
        command = self._command(words, become=become, nonce=nonce)
        relay = ScriptOutput(f"\nsshoal-dial {nonce}\n".encode(), self._password_prompt(nonce, become))
        stream = Stream(self.host_name, relay, self._exec_slots)
        await self._exec_slots.acquire()
        try:
            wire = await self._start(command, stream)
            await self._feed_password(wire, relay, become=become)
            await relay.started_or_ended()
            if not relay.started.is_set():
                raise self._no_agent(relay)
        except BaseException:
            stream.close()
            raise
        if self._owns_agent:
            self._may_forward = False  # the socket is there, so it was the forwarding that sshd refused
        return stream

    def _no_agent(self, relay: ScriptOutput) -> HostError:
        refused = self._sudo_refusal(relay) if self._uses_sudo(not self._connection.rootless) else None
        if refused is not None:
            return refused
        said = printable(bytes(relay.stderr) or bytes(relay.stdout)) or f"exit code {relay.exit_code}"
        return HostNotReady(
            self.host_name, f"no agent answers: {said}", hint=f"sshoal node check {self.host_name} tells more"
        )

    # ---- commands ---------------------------------------------------------------------------------------------------

    def _command(self, words: list[str], *, become: bool, nonce: str) -> str:
        """One line that every login shell understands, csh and fish included: plain words and single quotes."""
        prefix = ["exec", "env", "LC_ALL=C"]  # sudo's refusals are recognised by their English text
        if self._uses_sudo(become):
            asks = ["-S", "-p", f"sshoal-{nonce}-password"] if self._connection.become_password else ["-n"]
            prefix += ["sudo", *asks, "-u", self._become_user, "--"]
        return " ".join(map(shlex.quote, prefix + words))

    @property
    def _become_user(self) -> str:
        return self._connection.become_user or "root"

    def _uses_sudo(self, become: bool) -> bool:
        return become and not (self._is_root and self._become_user == "root")

    def _password_prompt(self, nonce: str, become: bool) -> bytes:
        return f"sshoal-{nonce}-password".encode() if self._uses_sudo(become) else b""

    async def _feed_password(self, wire: Wire, output: ScriptOutput, *, become: bool) -> None:
        """sudo may ask or not (NOPASSWD, cached): the password is sent only when its marked prompt was seen."""
        password = self._connection.become_password
        if password is None or not self._uses_sudo(become):
            return
        await output.started_or_ended(or_asked=True)
        if output.asked:
            wire.write(password.reveal().encode() + b"\n")
            await output.started_or_ended()

    @contextlib.asynccontextmanager
    async def _exec(self, command: str, output: ScriptOutput) -> AsyncIterator[Wire]:
        wire = await self._start(command, output)
        try:
            yield wire
        finally:
            if not output.ended.is_set():
                wire.abort()

    async def _start(self, command: str, taker: Taker) -> Wire:
        """A new session. sshd counts ended ones until it has reaped them, so that a refusal may pass."""
        return await patiently(lambda: self._try_start(command, taker))

    def _completed(self, output: ScriptOutput, *, become: bool) -> Completed:
        if output.overflowed:
            if not output.started.is_set():
                raise HostNotReady(
                    self.host_name,
                    f"prints more than {NOISE_BYTES_MAX >> 10} KiB before it runs a command",
                    hint="look into what its login shell reads (~/.bashrc, /etc/profile)",
                )
            raise HostError(self.host_name, f"a command printed more than {OUTPUT_BYTES_MAX >> 20} MiB; it was cut off")
        if not output.started.is_set():
            if output.lost is not None:
                raise self._broken(output.lost)
            refused = self._sudo_refusal(output) if self._uses_sudo(become) else None
            if refused is not None:
                raise refused
            said = printable(bytes(output.stderr) or bytes(output.stdout)) or f"exit code {output.exit_code}"
            raise HostNotReady(
                self.host_name,
                f"runs no commands for this user: {said}",
                hint="the login shell must be a usable one, and the key must not be bound to a command",
            )
        if output.exit_code is None:
            raise self._broken(output.lost)
        return Completed(output.exit_code, bytes(output.stdout), bytes(output.stderr))

    def _sudo_refusal(self, output: ScriptOutput) -> HostNotReady | None:
        said = printable(bytes(output.stderr), 2000)
        name, user = self.host_name, self._become_user
        if output.asked_again or "incorrect password" in said:
            return HostNotReady(name, "sudo does not accept the password", hint="check ansible_become_password")
        if "must have a tty" in said:
            return HostNotReady(
                name,
                "sudo wants a terminal (requiretty)",
                hint="put `Defaults !requiretty` into a file of /etc/sudoers.d there",
            )
        if "password is required" in said:
            return HostNotReady(
                name,
                "sudo wants a password",
                hint="set ansible_become_password (best in a vault), or allow it without one: NOPASSWD in /etc/sudoers.d there",
            )
        if "not in the sudoers" in said or "not allowed to" in said or "may not run sudo" in said:
            return HostNotReady(
                name, f"sudo does not let this user become {user}", hint="add a rule in /etc/sudoers.d there"
            )
        if "sudo" in said and output.exit_code == 127:
            return HostNotReady(name, "sudo is not installed", hint="install it there, or log in as root")
        if "sudo: " in said:  # in words of its own: a user that there is not, broken rules, an account that has ended
            return HostNotReady(
                name,
                f"sudo runs nothing there: {printable(said)}",
                hint=f"see what `sudo -u {user} true` says there for the user who logs in",
            )
        return None

    # ---- failures ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _deadline(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise HostUnreachable(self.host_name, f"no answer within {timeout_s:g} s") from None

    def _no_session(self, reason: str) -> Throttled:
        return Throttled(
            self.host_name,
            f"its sshd opens no further session: {printable(reason)}",
            hint="MaxSessions in sshd_config there must be at least 10, sshd's default",
        )

    def _broken(self, error: BaseException | None) -> HostUnreachable:
        said = printable(str(error)) if error is not None and str(error) else "the connection was lost"
        return HostUnreachable(self.host_name, said)


class ScriptOutput:
    """What a command has said so far. Output before the marker is noise: rc files, banners."""

    def __init__(self, marker: bytes, password_prompt: bytes, tell: Tell | None = None) -> None:
        """`tell` is given what comes after the marker; without it that is kept here."""
        self._marker = marker
        self._prompt = password_prompt
        self._tell = tell
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.asked = False
        self.asked_again = False
        self.overflowed = False
        self.exit_code: int | None = None
        self.lost: Exception | None = None
        self._changed = asyncio.Event()
        self._errors_started = False

    async def started_or_ended(self, *, or_asked: bool = False) -> None:
        """Waits for the marker, the end, a second prompt for the password, or (if asked for) the first."""
        while not (self.started.is_set() or self.ended.is_set() or self.asked_again or (or_asked and self.asked)):
            self._changed.clear()
            await self._changed.wait()

    def received(self, data: bytes, is_error: bool) -> bool:
        """Takes bytes in; False when that was too much."""
        if is_error:
            self._received_error(data)
        else:
            self._received_output(data)
        self._changed.set()
        if self._tell is not None:
            self._pass_on(self._tell)
        limit = OUTPUT_BYTES_MAX if self.started.is_set() else NOISE_BYTES_MAX
        self.overflowed = len(self.stdout) > limit or len(self.stderr) > limit
        return not self.overflowed

    def _pass_on(self, tell: Tell) -> None:
        for begun, kept, is_error in (
            (self.started.is_set(), self.stdout, False),
            (self._errors_started, self.stderr, True),
        ):
            if begun and kept:
                tell(bytes(kept), is_error)
                kept.clear()

    def opened(self, wire: Wire) -> None:
        """Whoever started the command holds it."""

    def writing(self, allowed: bool) -> None:
        """A script and its input are sent whole."""

    def exited(self, code: int) -> None:
        self.exit_code = code

    def end(self, error: Exception | None) -> None:
        if not self.ended.is_set():
            self.lost = error
        self.ended.set()
        self._changed.set()

    def _received_output(self, data: bytes) -> None:
        self.stdout += data
        if not self.started.is_set():
            found = self.stdout.find(self._marker)
            if found >= 0:
                del self.stdout[: found + len(self._marker)]
                self.started.set()

    def _received_error(self, data: bytes) -> None:
        self.stderr += data
        if self._prompt and not self.started.is_set():
            prompts = self.stderr.count(self._prompt)
            self.asked, self.asked_again = prompts > 0, prompts > 1
        if not self._errors_started:
            found = self.stderr.find(self._marker)
            if found >= 0:
                del self.stderr[: found + len(self._marker)]
                self._errors_started = True


class Stream:
    """A Channel. Bytes wait here until they are read; when too many wait, the host is told to pause."""

    def __init__(
        self, host_name: str, relay: ScriptOutput | None = None, slots: asyncio.Semaphore | None = None
    ) -> None:
        self._host_name = host_name
        self._relay = relay  # of `dial`: what it says before its marker
        self._slots = slots
        self._wire: Wire | None = None
        self._waiting = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._at_end = False
        self._lost: Exception | None = None
        self._closed = False

    async def read(self) -> bytes:
        while not self._waiting:
            if self._closed or self._at_end:
                if self._lost is not None:
                    raise HostUnreachable(self._host_name, printable(str(self._lost)) or "the connection was lost")
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._paused and self._wire is not None:
            self._paused = False
            self._wire.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        await self._writable.wait()
        if self._closed or self._at_end or self._wire is None:
            raise HostUnreachable(self._host_name, "the agent closed the conversation")
        try:
            self._wire.write(data)
        except OSError as error:
            raise HostUnreachable(self._host_name, printable(str(error)) or "the connection was lost") from None
        await self._writable.wait()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._release_slot()
        if self._wire is not None:
            self._wire.abort()
        self._wake()

    # ---- what the SSH library tells (Taker) -------------------------------------------------------------------------

    def opened(self, wire: Wire) -> None:
        self._wire = wire

    def received(self, data: bytes, is_error: bool) -> bool:
        relay = self._relay
        if relay is not None and (is_error or not relay.started.is_set()):
            fits = relay.received(data, is_error)
            if is_error and relay.started.is_set():
                del relay.stderr[:-4096]  # nobody reads it after the start
            if relay.started.is_set():
                self._waiting += relay.stdout
                relay.stdout.clear()
            self._arrived.set()
            return fits
        self._waiting += data
        self._arrived.set()
        if len(self._waiting) > PAUSE_READING_BYTES and not self._paused and self._wire is not None:
            self._paused = True
            self._wire.pause_reading()
        return True

    def exited(self, code: int) -> None:
        if self._relay is not None:
            self._relay.exit_code = code

    def writing(self, allowed: bool) -> None:
        if allowed:
            self._writable.set()
        else:
            self._writable.clear()

    def half_closed(self) -> None:
        self._at_end = True
        self._wake()

    def end(self, error: Exception | None) -> None:
        self._lost = error
        self._at_end = True
        if self._relay is not None:
            self._relay.end(error)
        self._release_slot()
        self._wake()

    def _release_slot(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None

    def _wake(self) -> None:
        self._arrived.set()
        self._writable.set()
