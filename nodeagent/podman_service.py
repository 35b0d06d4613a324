"""Podman's HTTP service as coroutines with deadlines. The only importer of podman (podman-py).

In: method, path and JSON of one request of the libpod API. Out: its answer, or a RuntimeFault with a reason a program can act on.
Each request runs in a thread of its own. One that outlives its deadline is abandoned, and counted until it comes back: it never keeps
others waiting, and when too many hang, further calls are refused at once.
"""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

import podman
import podman.errors

from nodeagent.runtime import RuntimeFault

CALLS_MAX = 12  # at the same time; more wait
HANGING_MAX = 24  # threads given up on, before further calls are refused
MESSAGE_LENGTH_MAX = 600

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Status below 400, or one the caller said it expects; `data` is parsed JSON, None for an empty body."""

    status: int
    data: Any


class PodmanService:
    """The service behind a unix socket. It may be restarted at any time: connections are made anew. Build it inside the running loop."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._api = podman.PodmanClient(base_url=f"unix://{socket_path}", max_pool_size=CALLS_MAX).api
        self.prefix = str(self._api.path_prefix)
        self._free = asyncio.Semaphore(CALLS_MAX)
        self._hanging = 0

    async def get(self, path: str, *, timeout_s: float, expect: tuple[int, ...] = (), **params: Any) -> Answer:
        return await self.call("GET", path, params=params, timeout_s=timeout_s, expect=expect)

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        params: Optional[Mapping[str, Any]] = None,
        body: Any = None,
        expect: tuple[int, ...] = (),
    ) -> Answer:
        """One request of the libpod API.

        Args:
            path: below /libpod, e.g. "/containers/json".
            expect: statuses from 400 up that the caller wants to see as an answer.
        Raises: RuntimeFault.
        """

        def request() -> Answer:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if data is not None else None
            response = self._request(method, path, params=_words(params), data=data, headers=headers, timeout=timeout_s)
            return _answer(f"{method} {path}", response, expect)

        return await self._in_thread(f"{method} {path}", request, timeout_s)

    async def post_lines(
        self,
        path: str,
        *,
        each_line: Callable[[dict[str, Any]], None],
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        silence_s: float,
        timeout_s: float,
    ) -> None:
        """Posts to the Docker-compatible API and hands over each JSON object of the answer (in a thread), however long it takes.

        Gives up after `silence_s` without a byte, or when `each_line` raises.
        """

        def request() -> None:
            response = self._request(
                "POST", path, params=_words(params), headers=headers, timeout=silence_s, stream=True, compatible=True
            )
            with contextlib.closing(response):
                if response.status_code >= 400:
                    _answer(f"POST {path}", response, ())
                try:
                    for line in response.iter_lines(chunk_size=512):
                        if line.strip():
                            each_line(json.loads(line))
                except OSError as error:  # of requests: silence in the middle of an answer comes as such
                    why = str(error)
                else:
                    return
            raise _broken(f"POST {path}", why)  # out here, as in _request

        await self._in_thread(f"POST {path}", request, timeout_s)

    async def upload(self, path: str, content: Iterable[bytes], *, timeout_s: float) -> Answer:
        """Posts a tar archive piece by piece; it is read in a thread."""

        def request() -> Answer:
            headers = {"Content-Type": "application/x-tar"}
            response = self._request("POST", path, data=content, headers=headers, timeout=timeout_s)
            return _answer(f"POST {path}", response, ())

        return await self._in_thread(f"POST {path}", request, timeout_s)

    def close(self) -> None:
        """Drops idle connections."""
        self._api.close()

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            return self._api._request(method, path, **options)
        except podman.errors.APIError as error:
            why = str(error.__cause__ or error)
        # Raised out here, the fault does not hold on to podman-py's frames, whose socket would stay open.
        raise _broken(f"{method} {path}", why)

    async def _in_thread(self, what: str, work: Callable[[], T], timeout_s: float) -> T:
        self._refuse_when_it_hangs()
        try:
            await asyncio.wait_for(self._free.acquire(), timeout_s)
        except asyncio.TimeoutError:
            raise RuntimeFault("timeout", f"{what}: Podman is busy with {CALLS_MAX} other calls") from None
        try:
            self._refuse_when_it_hangs()  # what was ahead may all have been given up on
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            job = _Job(work, done, loop, self._came_back)
            try:
                threading.Thread(target=job.run, name=what[:40], daemon=True).start()
            except RuntimeError as error:  # process ids or memory have run out
                raise RuntimeFault("unavailable", f"{what}: this host starts no more threads ({error})") from None
            try:
                return await asyncio.wait_for(done, timeout_s + 1.0)  # the request's own timeout comes first, as a rule
            except asyncio.TimeoutError:
                raise RuntimeFault("timeout", f"{what}: no answer from Podman within {timeout_s:g} s") from None
            finally:
                if not job.finished:
                    self._hanging += 1
                    job.abandoned = True
        finally:
            self._free.release()

    def _refuse_when_it_hangs(self) -> None:
        if self._hanging >= HANGING_MAX:
            raise RuntimeFault("unavailable", f"Podman hangs: {self._hanging} calls were not answered in time")

    def _came_back(self) -> None:
        self._hanging -= 1


class _Job:
    """One call under way in its thread; what comes of it is handed to the loop, unless nobody waits any more."""

    def __init__(
        self,
        work: Callable[[], Any],
        done: "asyncio.Future[Any]",
        loop: asyncio.AbstractEventLoop,
        came_back: Callable[[], None],
    ) -> None:
        self.finished = False
        self.abandoned = False
        self._work, self._done, self._loop, self._came_back = work, done, loop, came_back

    def run(self) -> None:
        result, failure = None, None
        try:
            result = self._work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._settle, result, failure)

    def _settle(self, result: Any, failure: Optional[Exception]) -> None:
        self.finished = True
        if self.abandoned:
            self._came_back()
        elif self._done.done():
            return
        elif isinstance(failure, RuntimeFault):
            self._done.set_exception(failure)
        elif failure is not None:
            self._done.set_exception(RuntimeFault("failed", f"Podman's answer was not understood ({failure!r:.200})"))
        else:
            self._done.set_result(result)


def _broken(what: str, why: str) -> RuntimeFault:
    if "timed out" in why.lower():
        return RuntimeFault("timeout", f"{what}: no answer from Podman in time")
    return RuntimeFault("unavailable", f"Podman's service does not answer ({why})")


def _words(params: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Query parameters as Podman reads them; filters are JSON, since podman-py's own form matches nothing for several labels."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (params or {}).items()
        if value is not None
    }


def _answer(what: str, response: Any, expect: Iterable[int]) -> Answer:
    status, text = response.status_code, response.text
    if status >= 400 and status not in expect:
        raise fault(what, status, text)
    return Answer(status, json.loads(text) if text.strip() else None)


# what Podman's messages mean; the first that matches counts
_REASONS: tuple[tuple[str, str], ...] = (
    (r"address already in use|port is already allocated|bind: .*in use", "port-taken"),
    (r"no space left on device|disk quota exceeded", "no-space"),
    (r"layer not known|/overlay/[0-9a-f]{64}\b.*: no such file", "storage-corrupt"),
    (r"image not known|no such image|unable to find .*image", "image-missing"),
    (
        r"name .* is (already )?in use|name is already in use|(pod|container|network) already exists|already used",
        "conflict",
    ),
    (
        r"no such (container|pod|network|exec session)|no (container|pod) with|network not found|unable to find network",
        "not-found",
    ),
)


def fault(what: str, status: int, text: str) -> RuntimeFault:
    """The RuntimeFault for an answer of Podman that is an error."""
    message = text
    with contextlib.suppress(ValueError, AttributeError):
        message = json.loads(text).get("message") or text
    message = " ".join(message.split())[:MESSAGE_LENGTH_MAX]
    for pattern, reason in _REASONS:
        if re.search(pattern, message, re.IGNORECASE):
            return RuntimeFault(reason, message)
    return RuntimeFault(
        {404: "not-found", 409: "conflict"}.get(status, "failed"), message or f"{what}: status {status}"
    )
