"""Inventory sources (files, directories, host lists, programs) → one Inventory. Reads files; talks to no host.

In: what the user gave with -i, in order. Out: model.inventory.Inventory, or InventoryError with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from controller.act.inventory import ini, ranges
from controller.act.inventory.builder import Builder, Place
from controller.act.inventory.files import read_text
from controller.act.inventory.variables import VariableDirectories
from controller.act.inventory.vault import VaultKeys, is_vaulted
from controller.act.userpath import is_there, user_path
from controller.model.errors import InventoryError
from controller.model.inventory import Inventory
from controller.model.inventory_patterns import split

__all__ = ["VaultKeys", "load_inventory", "read_pattern"]

# What Ansible leaves out of a directory of sources.
_IGNORED = re.compile(
    r"^\.|^host_vars$|^group_vars$|^vars_plugins$|(~|\.(pyc|pyo|swp|bak|rpm|md|txt|rst|orig|cfg|retry))$"
)
_YAML_SUFFIXES = {".yml", ".yaml", ".json"}
_YAML_FIRST_LINE = re.compile(r"---|\{|[^\s=\[#]+:(\s|$)")
_DIRECTORY_DEPTH_MAX = 16
_PATTERN_FILE_LINES_MAX = 10_000


def load_inventory(
    sources: Sequence[str],
    *,
    allow_executables: bool = False,
    vault: VaultKeys | None = None,
    playbook_directory: str | None = None,
) -> Inventory:
    """Reads all sources, in order; later ones add to and win over earlier ones.

    A source is a file (INI, YAML or JSON), a directory of such, `host1,host2,` or, with `allow_executables`, a program.
    group_vars/ and host_vars/ are read beside each source and, with `playbook_directory`, there too.
    Raises InventoryError; nothing is skipped silently.
    """
    if not sources:
        raise InventoryError("no inventory is given", hint="give -i hosts.ini, or run `sshoal init user@host`")
    builder = Builder()
    keys = vault or VaultKeys()
    directories: dict[Path, None] = {}
    for source in sources:
        path = user_path(source)
        if is_there(path):
            try:
                _read(path, builder, keys, allow_executables, 0)
            except OSError as error:
                raise InventoryError(f"cannot be read: {error.strerror}", file=str(error.filename or source)) from None
            directories[path if path.is_dir() else path.parent] = None
        elif "," in source:
            _read_list(source, builder)
        else:
            raise InventoryError(
                "there is no such inventory", file=source, hint="a list of hosts has a comma: host1,host2 or host1,"
            )
    playbook = [] if playbook_directory is None else [Path(playbook_directory)]
    return builder.finish(VariableDirectories([*directories], keys), VariableDirectories(playbook, keys))


def read_pattern(pattern: str) -> str:
    """A host pattern with each `@file` part replaced by the lines of that file. Raises InventoryError."""
    parts = split(pattern)
    if not any(part.startswith("@") for part in parts):
        return pattern
    resolved: list[str] = []
    for part in parts:
        resolved += _pattern_lines(user_path(part[1:])) if part.startswith("@") else [part]
    return ",".join(resolved) + ","


def _pattern_lines(path: Path) -> list[str]:
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) > _PATTERN_FILE_LINES_MAX:
        raise InventoryError(f"more than {_PATTERN_FILE_LINES_MAX} lines", file=str(path))
    return lines


def _read(path: Path, builder: Builder, keys: VaultKeys, allow_executables: bool, depth: int) -> None:
    place = Place(str(path))
    if path.is_dir():
        if depth == _DIRECTORY_DEPTH_MAX:
            raise place.error(f"directories nested more than {_DIRECTORY_DEPTH_MAX} deep")
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name):
            if not _IGNORED.search(entry.name):
                _read(entry, builder, keys, allow_executables, depth + 1)
        return
    if not path.is_file():
        raise place.error("this is neither a file nor a directory")
    builder.directory = str(path.parent.absolute())
    if _is_program(path):
        if not allow_executables:
            raise place.error(
                "this is a program; programs are run only when asked", hint="--allow-executable-inventory, or chmod -x"
            )
        from controller.act.inventory import script

        script.read(path, builder)
        return
    text = read_text(path)
    if is_vaulted(text):
        text = keys.open(text, place)
    if path.suffix == ".toml":
        raise place.error("TOML inventories are not supported", hint="write it as INI or YAML")
    if _is_yaml(path, text):
        from controller.act.inventory import yaml  # costs start-up time; INI inventories do without

        yaml.read(text, str(path), builder, keys.open)
    else:
        ini.read(text, str(path), builder)


def _read_list(source: str, builder: Builder) -> None:
    place = Place(repr(source))
    builder.directory = ""
    for name in filter(None, (part.strip() for part in source.split(","))):
        try:
            names, port = ranges.expand(name)
        except ValueError as error:
            raise place.error(f"{name!r}: {error}") from None
        for host in names:
            builder.add_host(host, "ungrouped", port, place)


def _is_program(path: Path) -> bool:
    """Executable by its mode and by its first bytes: some file systems mark every file executable."""
    if not path.stat().st_mode & 0o111:
        return False
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def _is_yaml(path: Path, text: str) -> bool:
    """By the name's ending; without one, by the first line that says something. INI with any other ending."""
    if path.suffix:
        return path.suffix in _YAML_SUFFIXES
    for line in text.splitlines():
        if line.strip() and line.lstrip()[0] not in "#;":
            return bool(_YAML_FIRST_LINE.match(line.strip()))
    return False
