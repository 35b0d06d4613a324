"""One file into a container or out of it, through exec. No archive from a host is ever unpacked here.

The names of what is written come from the command line alone: a container that lies can fill one file, up to a bound, and no other. A file
appears whole or not at all: it is written beside its name first, and moved there at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from controller.act.userpath import user_path
from controller.cli.containers import choose_container, exec_words, host_of_pod, tell_choice
from controller.cli.output import Progress
from controller.model.cluster import Pod
from controller.model.errors import HostError, HostUnreachable, SshoalError, UsageError
from controller.model.text import printable
from nodeagent import protocol
from nodeagent.protocol import ExecRequest

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring

IDLE_S = 60.0  # without a byte in either direction
BLOCK_BYTES = 256 * 1024
COMPLAINT_BYTES_MAX = 4096
_REMOTE = re.compile(r"(?:([a-z0-9][a-z0-9-]*)/)?([a-z0-9][a-z0-9.-]*):(.*)", re.DOTALL)

# $1: where to, $2: the local name, $3: bytes, $4: mode, $5: what no other upload is called. A connection that breaks looks like the end of
# the input: so the bytes are counted. `mv` would move into a directory of that name; a relative name may begin with a dash.
_TAKE_IN = """
case "$1" in /*) to="$1" ;; *) to="./$1" ;; esac
if [ -d "$to" ]; then to="${to%/}/$2"; fi
if [ -d "$to" ]; then echo "$to is a directory" >&2; exit 1; fi
part="${to%/*}/.sshoal-part-$5"
trap 'rm -f "$part"' EXIT
cat > "$part" && [ "$(wc -c < "$part")" -eq "$3" ] && chmod "$4" "$part" && mv -f "$part" "$to"
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a container of a pod. `namespace` is "" where none was given."""

    namespace: str
    pod: str
    path: str


class Stream(Protocol):
    """What is needed of an AgentStream."""

    exit: dict[str, Any] | None

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]: ...

    async def write(self, data: bytes) -> None: ...

    async def end_input(self) -> None: ...


def parse_place(word: str) -> Place | None:
    """[NAMESPACE/]POD:PATH; None for a local path. Raises UsageError for a pod without a path."""
    found = _REMOTE.fullmatch(word)
    if not found:
        return None
    if not found[3] or "\0" in found[3]:
        raise UsageError(f"{word!r} names no file", hint=f"{word.rstrip(':')}:/etc/hosts")
    return Place(found[1] or "", found[2], found[3])


def local_target(word: str, remote: str) -> Path:
    """Where a download goes: in a directory under the name that was asked for. Raises UsageError."""
    path = user_path(word)
    if path.is_dir() or word.endswith("/"):
        name = PurePosixPath(remote).name
        if name in ("", ".", ".."):
            raise UsageError(f"{remote!r} names no file", hint="cp copies single files")
        path = path / name
    path = path.resolve()
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file")
    return path


def local_source(word: str) -> Path:
    """Raises UsageError for what is no file."""
    path = user_path(word)
    if path.is_dir():
        raise UsageError(
            f"{word} is a directory: cp copies single files",
            hint=f"tar c {word} | sshoal exec -i POD -- tar x -C DIRECTORY",
        )
    if not path.is_file():
        raise UsageError(f"there is no file {word}")
    return path


async def download(wiring: Wiring, pod: Pod, container: str, remote: str, path: Path, bytes_max: int) -> int:
    """Returns how many bytes there are. Raises HostError; then nothing is at `path` that was not there before."""
    async with _executing(wiring, pod, container, ("cat", "--", remote), stdin=False) as stream:
        return await receive(stream, pod.node, path, bytes_max)


async def upload(wiring: Wiring, pod: Pod, container: str, file: Path, remote: str) -> int:
    """Returns how many bytes went. Raises HostError; then nothing is under that name in the container that was not there before."""
    size, mode = size_and_mode(file)
    words = ("sh", "-c", _TAKE_IN, "sshoal", remote, file.name, str(size), f"{mode:o}", secrets.token_hex(8))
    async with _executing(wiring, pod, container, words, stdin=True) as stream:
        return await send(stream, pod.node, file, size)


async def receive(stream: Stream, node: str, path: Path, bytes_max: int) -> int:
    """What a stream sends → the file `path`, replaced at the end. Raises HostError, SshoalError when it can't be written."""
    line, complaint, size = Progress(), bytearray(), 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_writing(path))
        file = stack.enter_context(_appearing(path))
        stack.callback(line.clear)
        async with _idle(node) as clock:
            async for kind, data in stream:
                clock.reschedule(asyncio.get_running_loop().time() + IDLE_S)
                if kind == protocol.STDERR:
                    complaint += data[: COMPLAINT_BYTES_MAX - len(complaint)]
                    continue
                size += len(data)
                if size > bytes_max:
                    raise HostError(node, f"it sends more than {bytes_max} bytes", hint="--max-size allows more")
                file.write(data)
                line.show(f"{path.name}  {size} bytes")
        _require_success(stream, node, bytes(complaint))
    return size


async def send(stream: Stream, node: str, path: Path, size: int) -> int:
    """The first `size` bytes of the file → a stream that counts what arrives. Raises HostError, SshoalError when it can't be read."""
    line, complaint, sent, unread = Progress(), bytearray(), 0, ""

    async def feed() -> None:
        nonlocal sent, unread
        try:
            with path.open("rb") as file:
                while sent < size:  # no further: a log grows meanwhile
                    block = await asyncio.to_thread(file.read, min(BLOCK_BYTES, size - sent))
                    if not block:
                        unread = "it has become shorter meanwhile"
                        break
                    await stream.write(block)
                    sent += len(block)
                    clock.reschedule(asyncio.get_running_loop().time() + IDLE_S)
                    line.show(f"{path.name}  {sent} of {size} bytes")
        except OSError as error:
            unread = error.strerror or str(error)
        await stream.end_input()

    try:
        async with _idle(node) as clock:
            feeding = asyncio.ensure_future(feed())
            try:
                async for _, data in stream:
                    complaint += data[: COMPLAINT_BYTES_MAX - len(complaint)]
            finally:
                feeding.cancel()
                with contextlib.suppress(HostError, asyncio.CancelledError):  # how the command ended says more
                    await feeding
        if unread:
            raise SshoalError(f"{path} can't be read to its end: {unread}")
        _require_success(stream, node, bytes(complaint))
    finally:
        line.clear()
    return sent


@contextlib.asynccontextmanager
async def _executing(
    wiring: Wiring, pod: Pod, container: str, words: tuple[str, ...], *, stdin: bool
) -> AsyncIterator[Stream]:
    world = wiring.world()
    name = choose_container(world, pod, container)
    tell_choice(world, pod, container)
    async with wiring.fleet(deploy=False) as fleet:
        request = ExecRequest(pod.meta.uid, name, exec_words(words), stdin, False, 0, 0)
        stream = await fleet.stream(host_of_pod(wiring, world, pod), protocol.EXEC, request)
        try:
            yield stream
        finally:
            stream.close()


@contextlib.asynccontextmanager
async def _idle(node: str) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(IDLE_S) as clock:
            yield clock
    except TimeoutError:
        raise HostUnreachable(node, f"nothing came or went for {IDLE_S:g} s") from None


def _require_success(stream: Stream, node: str, complaint: bytes) -> None:
    code = (stream.exit or {}).get("code")
    if code == 0:
        return
    said = printable(complaint) or (
        "how it ended is not known" if code is None else f"exit code {printable(str(code))}"
    )
    raise HostError(node, f"the container did not do it: {said}", hint="it needs sh and cat (`sshoal exec` shows more)")


def size_and_mode(path: Path) -> tuple[int, int]:
    """Raises UsageError for a file that can't be read, or that does not say how long it is."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            begins = file.read(1)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    if begins and not facts.st_size:  # as those in /proc
        raise UsageError(
            f"{path} does not say how long it is", hint=f"cat {path} | sshoal exec -i POD -- sh -c 'cat > FILE'"
        )
    return facts.st_size, facts.st_mode & 0o777


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SshoalError(f"{path} can't be written: {error.strerror}") from None


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well, and is gone else."""
    begin = os.fsencode(path.name)[:100].decode(errors="ignore")  # a file's name has at most 255 bytes
    descriptor, name = tempfile.mkstemp(prefix=f".{begin}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(descriptor, _mode_for(path))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _mode_for(path: Path) -> int:
    """That of the file it replaces, else what a new file gets."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
