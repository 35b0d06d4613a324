"""Settings by file: sshoal.toml. In: where to look. Out: a Config, or one error with file, line and the nearest right word.

What a command line or the environment says wins over the file, and the file over the defaults. docs/configuration.md has every key.

The file is checked by hand: completion reads it at every press of a key, and pydantic alone would take longer than all else of that.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.act.userpath import is_host_list, is_there, user_path, vault_id_of, vault_id_parts
from controller.cli.output import duration_s
from controller.model.errors import ConfigError, UsageError

NAME = "sshoal.toml"
CONTEXT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_BYTES_MAX = 1024 * 1024
_DAY = re.compile(r"(\d+)d")


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """[contexts.NAME]. Paths are absolute."""

    directory: Path | None = None
    inventory: tuple[str, ...] = ()
    namespace: str = ""
    vault_ids: tuple[str, ...] = ()
    allow_executables: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """A file, or none: `path` is None, and everything is at its default."""

    path: Path | None = None
    context: str = ""
    contexts: Mapping[str, ContextEntry] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by command, "" for all; then by parameter
    history: Mapping[str, float] = field(default_factory=dict)  # fields of store.history.Bounds

    def defaults(self, command: str) -> dict[str, Any]:
        """Options of a command as the file sets them, by the names of its parameters. What it does not have does not matter."""
        return {**self.options.get("", {}), **self.options.get(command, {})}


# ---- finding it ---------------------------------------------------------------------------------------------------------


def load(given: str) -> Config:
    """The file `given` (--config or $SSHOAL_CONFIG), else the first that is found. Raises ConfigError, UsageError."""
    if given:
        path = user_path(given).absolute()
        if not path.is_file():
            raise UsageError(f"there is no file {path}", hint="--config and $SSHOAL_CONFIG name a sshoal.toml")
        return read(path)
    for path in places(_working_directory(), Path.home(), os.environ.get("XDG_CONFIG_HOME", "")):
        if is_there(path) and path.is_file():  # of another user's directory nothing can be said, and nothing is needed
            if _is_trusted(path):
                return read(path)
            print(f"note: {path} is passed over: others than you can change it", file=sys.stderr)
    return Config()


def _working_directory() -> Path:
    """The home directory in place of one that was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path.home()


def places(directory: Path, home: Path, config_home: str) -> Iterator[Path]:
    """Where a file is looked for, the first wins: here and above, up to the home directory; then in the user's configuration."""
    for above in (directory, *directory.parents):
        yield above / NAME
        if above == home:
            break
    yield (Path(config_home) if config_home.startswith("/") else home / ".config") / "sshoal" / NAME


def _is_trusted(path: Path) -> bool:
    """A file that nobody asked for counts only if it is ours or root's: it can name programs that are run as inventories."""
    owners = {0, os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        owners.add(int(os.environ["SUDO_UID"]))
    found = path.stat()
    return found.st_uid in owners and not found.st_mode & 0o022


# ---- reading it ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Config:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_MAX + 1).decode("utf-8-sig")
        if len(text) > _BYTES_MAX:
            raise ConfigError("larger than 1 MiB", file=str(path))
        plain = tomllib.loads(text)
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = int(found[1]) if found else len(text.splitlines())  # else it is at the end of the document
        raise ConfigError(message[:1].lower() + message[1:], file=str(path), line=line) from None
    return _Reader(path, text).config(plain)


Check = Callable[[Any], Any]  # the value as it is used; ValueError with what is expected


class _Reader:
    """Checks what TOML gave, key by key."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, plain: dict[str, Any]) -> Config:
        tables = {"contexts", "history", *_OPTIONS}
        self._known((), plain, {"context", *tables})
        for name in tables & plain.keys():
            if not isinstance(plain[name], dict):
                raise self._error((name,), f"a table is expected: [{name}]")
        contexts = {name: self._context(name, entry) for name, entry in plain.get("contexts", {}).items()}
        context = self._one(("context",), plain.get("context", ""), _text)
        if context and context != "default" and context not in contexts:
            near = difflib.get_close_matches(context, contexts, n=1)
            hint = f"did you mean {near[0]}?" if near else f"[contexts.{context}] says what it is"
            raise self._error(("context",), f"there is no context {context!r} in this file", hint)
        options = {
            _COMMAND_OF[table]: self._table((table,), plain[table], _OPTIONS[table])
            for table in _OPTIONS
            if table in plain
        }
        if "log" in options:
            log = {f"log_{name}": value for name, value in options.pop("log").items()}
            for command in ("watch", "reconcile"):
                options[command] = {**log, **options.get(command, {})}
        history = self._table(("history",), plain.get("history", {}), _HISTORY)
        bounds = {f"{name}_s" if name.endswith("age") else name: value for name, value in history.items()}
        return Config(self._path, context, contexts, options, bounds)

    def _context(self, name: str, plain: Any) -> ContextEntry:
        place = ("contexts", name)
        if not CONTEXT_NAME.fullmatch(name):
            raise self._error(place, f"{name!r} is no name of a context", "letters, digits, '.', '_' and '-'")
        if not isinstance(plain, dict):
            raise self._error(place, f"a table is expected: [contexts.{name}]")
        found = self._table(place, plain, _CONTEXT)
        return ContextEntry(
            self._beside(found["directory"]) if found.get("directory") else None,
            tuple(
                one if is_host_list(one, self._path.parent) else str(self._beside(one))
                for one in found.get("inventory", ())
            ),
            found.get("namespace", ""),
            tuple(map(self._vault_id, found.get("vault_id", ()))),
            found.get("allow_executable_inventory", False),
        )

    def _table(self, place: tuple[str, ...], plain: dict[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
        """Values by the names of parameters. Paths in options are meant from the directory of the file."""
        self._known(place, plain, set(checks))
        found = {}
        for key, value in plain.items():
            checked = self._one((*place, key), value, checks[key])
            found[key.replace("-", "_")] = str(self._beside(checked)) if checks[key] is _path else checked
        return found

    def _one(self, place: tuple[str, ...], value: Any, check: Check) -> Any:
        try:
            return check(value)
        except ValueError as error:
            raise self._error(place, str(error)) from None

    def _known(self, place: tuple[str, ...], plain: dict[str, Any], names: set[str]) -> None:
        for key in plain:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(names))}"
                raise self._error((*place, key), "there is no such setting", hint)

    def _beside(self, path: str) -> Path:
        return self._path.parent / user_path(path)

    def _vault_id(self, text: str) -> str:
        label, source = vault_id_parts(text)
        return vault_id_of(label, source if source == "prompt" else str(self._beside(source)))

    def _error(self, place: tuple[str, ...], message: str, hint: str = "") -> ConfigError:
        return ConfigError(message, file=str(self._path), line=self._line(place), field=".".join(place), hint=hint)

    def _line(self, place: tuple[str, ...]) -> int:
        """Where a key or table stands: TOML's parser does not tell. 0 when it is written in a way that is not looked for."""
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
            if header:
                table = _dotted(header[1])
                if table == place:
                    return number
                continue
            key = re.match(r"\s*([\w.\"'-]+)\s*=", line)
            if key and (*table, *_dotted(key[1])) == place:
                return number
        return 0


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


# ---- what values may be -------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected, in quotes")
    return value


def _path(value: Any) -> str:
    if not _text(value):
        raise ValueError("a path is expected")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('a list of texts is expected, for example ["hosts.ini"]')
    return tuple(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


def _count(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000_000:
        raise ValueError("a number from 1 to 10000000 is expected")
    return value


def _duration(value: Any) -> str:
    try:
        duration_s(_text(value))
    except UsageError as error:
        raise ValueError(f"{error.message}: {error.hint}") from None
    return str(value)


def _age(value: Any) -> float:
    days = _DAY.fullmatch(value) if isinstance(value, str) else None
    seconds = int(days[1]) * 86400.0 if days else duration_s(_duration(value))
    if seconds < 60:
        raise ValueError("at least a minute is expected, for example 14d or 12h")
    return seconds


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)} is expected")
        return str(value)

    return check


_CONTEXT: Mapping[str, Check] = {
    "directory": _path,
    "inventory": _texts,
    "namespace": _text,
    "vault-id": _texts,
    "allow-executable-inventory": _flag,
}
_LOG: Mapping[str, Check] = {
    "format": _one_of("text", "json"),
    "level": _one_of("debug", "info", "warning", "error"),
}
_OPTIONS: Mapping[str, Mapping[str, Check]] = {
    "options": {"namespace": _text, "timeout": _duration},
    "watch": {"period": _duration, "metrics-listen": _text},
    "reconcile": {"settle": _flag, "budget": _duration, "period": _duration, "metrics-file": _path},
    "log": _LOG,
}
_COMMAND_OF = {"options": "", "watch": "watch", "reconcile": "reconcile", "log": "log"}
_HISTORY: Mapping[str, Check] = {"events": _count, "events-age": _age, "operations": _count, "operations-age": _age}
