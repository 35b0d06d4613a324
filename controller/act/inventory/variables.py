"""group_vars/ and host_vars/ beside the inventory sources → variables by group and host.

For each source's directory: `group_vars/NAME`, `NAME.yml`, `NAME.yaml` or `NAME.json`, the first that exists; a directory is read
with all it holds, sorted, hidden files and backups (`~`) left out. Later sources win over earlier ones. Raises InventoryError.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.act.inventory.builder import Place, check_variable_name
from controller.act.inventory.files import read_text
from controller.act.inventory.vault import VaultKeys, is_vaulted

_SUFFIXES = ("", ".yml", ".yaml", ".json")
_DEPTH_MAX = 16


class VariableDirectories:
    """Reads lazily, and each file once: only what belongs to a group or host that exists."""

    def __init__(self, directories: Sequence[Path], vault: VaultKeys) -> None:
        self._directories = directories
        self._vault = vault
        self._listings: dict[Path, frozenset[str]] = {}
        self._loaded: dict[Path, dict[str, Any]] = {}

    def of_groups(self, names: tuple[str, ...]) -> dict[str, Any]:
        return self._merged("group_vars", names)

    def of_host(self, name: str) -> dict[str, Any]:
        return self._merged("host_vars", (name,))

    def _merged(self, folder: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Directory by directory, and within each the names in their order."""
        variables: dict[str, Any] = {}
        for directory in self._directories:
            listing = self._listing(directory / folder)
            if not listing:
                continue
            for name in names:
                for suffix in _SUFFIXES:
                    if name + suffix in listing:
                        self._add(directory / folder / (name + suffix), variables, 0)
                        break
        return variables

    def _add(self, path: Path, variables: dict[str, Any], depth: int) -> None:
        if not path.is_dir():
            variables.update(self._file(path))
            return
        if depth == _DEPTH_MAX:
            raise Place(str(path)).error(f"directories nested more than {_DEPTH_MAX} deep")
        for name in sorted(self._listing(path)):
            entry = path / name
            if name.startswith(".") or name.endswith("~"):
                continue
            if entry.is_dir():
                if not entry.suffix:
                    self._add(entry, variables, depth + 1)
            elif entry.suffix in _SUFFIXES:
                variables.update(self._file(entry))

    def _file(self, path: Path) -> dict[str, Any]:
        if path not in self._loaded:
            self._loaded[path] = self._read(path)
        return self._loaded[path]

    def _read(self, path: Path) -> dict[str, Any]:
        from controller.act.inventory import yaml  # costs start-up time; many inventories hold no YAML

        place = Place(str(path))
        text = read_text(path)
        if is_vaulted(text):
            text = self._vault.open(text, place)
        data = yaml.load(text, str(path), self._vault.open)
        if not data:
            return {}
        if not isinstance(data, yaml.Located):
            raise place.error("the top level is not a mapping of variables", hint="write name: value lines")
        return {
            check_variable_name(name, Place(str(path), data.lines.get(name, 0))): yaml.plain(value)
            for name, value in data.items()
        }

    def _listing(self, path: Path) -> frozenset[str]:
        if path not in self._listings:
            try:
                self._listings[path] = frozenset(entry.name for entry in path.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                self._listings[path] = frozenset()
            except OSError as error:
                raise Place(str(path)).error(f"cannot be read: {error.strerror}") from None
        return self._listings[path]
