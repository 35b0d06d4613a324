"""Every error that sshoal raises on purpose.

    SshoalError                     message, optional place (file, line, host, field) and hint: what to do about it
    ├── UsageError                  exit 2: the user's input is wrong; nothing was changed
    │   ├── ManifestError           a manifest: file, line, field path; collects several problems
    │   ├── InventoryError          an inventory: file, line
    │   ├── ConfigError             sshoal.toml: file, line, field
    │   └── NotFound                a named object, node or file does not exist
    ├── Forbidden                   exit 1: a rule of its namespace is against it (quota, limit range, pod security); nothing was changed
    ├── StoreError                  exit 1: the store cannot be read or written
    │   ├── StoreConflict           the object changed since it was read
    │   └── StoreBehind             agents are ahead of this store: observe only until `adopt`
    ├── HostError                   exit 4: one host; always becomes data (Unseen) inside a pass
    │   ├── HostUnreachable         no connection, or it broke
    │   ├── HostAuthFailed          the server refused our credentials (never retried within a pass)
    │   ├── HostKeyUnknown          never trusted: `sshoal node trust`
    │   ├── HostKeyChanged          another key than the trusted one: quarantine
    │   ├── HostNotReady            reachable, but cannot serve (no Python, no Podman, sudo wants a password …)
    │   └── AgentRefused            the agent said no, with a code of nodeagent.protocol
    ├── AnotherController           exit 5: a pass is under way elsewhere
    ├── NotSettled                  exit 3: not in the declared state within the budget
    └── PlanBug                     exit 1: a decision broke an invariant; nothing was done

A host's failure is data: it is caught where the host is talked to. A bug is an exception and ends the command, unless it is met while one
host is observed: that host is unseen then.
"""

from __future__ import annotations


class SshoalError(Exception):
    """Base of all. `str()` is one line for the user; `hint` says what to do, and is printed on a line of its own."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SshoalError):
    exit_code = 2


class NotFound(UsageError):
    pass


class _PlacedError(UsageError):
    """An error at a place of a file."""

    def __init__(self, message: str, *, file: str = "", line: int = 0, field: str = "", hint: str = "") -> None:
        place = f"{file}:{line}" if file and line else file
        text = ": ".join(part for part in (place, field, message) if part)
        super().__init__(text, hint=hint)
        self.problem = message
        self.file = file
        self.line = line
        self.field = field


class ManifestError(_PlacedError):
    """One or several problems of manifests. `problems` holds each of them; it is (self,) when there is one.

    `runnable` names what --lenient would run instead; None: some problem is beyond it.
    """

    problems: tuple[ManifestError, ...]
    runnable: tuple[str, ...] | None = None

    def __init__(self, message: str, *, file: str = "", line: int = 0, field: str = "", hint: str = "") -> None:
        super().__init__(message, file=file, line=line, field=field, hint=hint)
        self.problems = (self,)

    @classmethod
    def several(cls, problems: list[ManifestError]) -> ManifestError:
        """One error that carries all `problems` (at least one), a line each."""
        if len(problems) == 1:
            return problems[0]
        error = cls("\n".join(problem.message for problem in problems))
        error.problems = tuple(problems)
        return error


class InventoryError(_PlacedError):
    pass


class ConfigError(_PlacedError):
    pass


class Forbidden(SshoalError):
    pass


class StoreError(SshoalError):
    pass


class StoreConflict(StoreError):
    pass


class StoreBehind(StoreError):
    pass


class HostError(SshoalError):
    """A failure of one host. `host` is its inventory name."""

    exit_code = 4

    def __init__(self, host: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{host}: {message}", hint=hint)
        self.host = host
        self.problem = message


class HostUnreachable(HostError):
    pass


class HostAuthFailed(HostError):
    pass


class HostKeyUnknown(HostError):
    pass


class HostKeyChanged(HostError):
    pass


class HostNotReady(HostError):
    pass


class AgentRefused(HostError):
    def __init__(self, host: str, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(host, message, hint=hint)
        self.code = code


class AnotherController(SshoalError):
    exit_code = 5


class NotSettled(SshoalError):
    exit_code = 3


class PlanBug(SshoalError):
    pass
