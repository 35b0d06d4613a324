"""Settings of our own Podman service: the host's, with one value changed. Run before each start of sshoal-podman.service.

In: the host's containers.conf files, read and never written. Out: two files in RUN, containers.conf and podman.env; the unit gives the
variable in podman.env to Podman. Without podman.env Podman runs with the host's settings alone.

The one value: after each exec by its API Podman keeps the exec's conmon, and a process to clean up after it, for five minutes. With a probe
each second that is hundreds of processes per container.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional

import tomli

EXEC_KEPT_S = 5  # an exec's exit code must be asked for within this time, on a busy host too
VERSION_TIMEOUT_S = 20.0
_OVERRIDE_SINCE = (4, 5)  # CONTAINERS_CONF_OVERRIDE: one more file, read last (containers/podman#17895)


def write(run: Path, podman: str, *, root: Path = Path("/"), home: Optional[Path] = None) -> None:
    """Writes both files for the Podman at the path `podman`; `home`: of the ordinary user who runs it.

    Before 4.5 there is only CONTAINERS_CONF, which replaces all of the host's files: they are merged here as Podman does it.
    Raises OSError, subprocess.SubprocessError, ValueError (a file is not TOML); then there is no podman.env.
    """
    env = run / "podman.env"
    env.unlink(missing_ok=True)
    ours = {"engine": {"exit_command_delay": EXEC_KEPT_S}}
    if _version(podman) >= _OVERRIDE_SINCE:
        variable, settings = "CONTAINERS_CONF_OVERRIDE", ours
    else:
        variable, settings = "CONTAINERS_CONF", merged([*_host_settings(root, home), ours])
    path = run / "containers.conf"
    path.write_text(f"# Made anew at each start of sshoal-podman.service.\n{dump(settings)}", encoding="utf-8")
    env.write_text(f"{variable}={path}\n", encoding="utf-8")


def _version(podman: str) -> tuple[int, ...]:
    done = subprocess.run([podman, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise ValueError(f"{podman} --version says no version: {done.stdout[:80]!r}")
    return int(found[1]), int(found[2])


def _host_settings(root: Path, home: Optional[Path]) -> Iterable[Mapping[str, Any]]:
    """In Podman's order: later files win, an ordinary user's own over the host's."""
    files = [root / "usr/share/containers/containers.conf"]
    for directory in (root / "etc/containers", *([home / ".config/containers"] if home else [])):
        files += [directory / "containers.conf", *sorted((directory / "containers.conf.d").glob("*.conf"))]
    for path in files:
        if path.is_file():
            yield tomli.loads(path.read_text(encoding="utf-8"))


def merged(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables are merged key by key; every other value, lists too, is replaced by the later one."""
    result: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            before = result.get(key)
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                result[key] = merged([before, value])
            else:
                result[key] = value
    return result


def dump(document: Mapping[str, Any]) -> str:
    """As TOML."""
    return "".join(_lines(document, ""))


def _lines(table: Mapping[str, Any], name: str) -> Iterable[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if name:
        yield f"\n[{name}]\n"
    for key, value in table.items():
        if key not in tables:
            yield f"{_key(key)} = {_value(value)}\n"
    for key, value in tables.items():
        yield from _lines(value, f"{name}.{_key(key)}" if name else _key(key))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):  # within a list
        return f"{{{', '.join(f'{_key(key)} = {_value(item)}' for key, item in value.items())}}}"
    return str(value)  # numbers and times are written as Python shows them


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
