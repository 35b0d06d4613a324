"""Where a context lives, and this machine's clock. A context is one cluster as one operator sees it: {store, key, known hosts, inventory}.

It is a directory; cli/contexts.py finds it by name. Nothing in it depends on who runs cron.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.act.storenames import FILE
from controller.act.userpath import is_host_list, user_path
from controller.act.wholefile import write_whole
from controller.model.cluster import Moment
from controller.model.errors import UsageError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Context:
    """Paths of one context. `inventory` holds the sources remembered by `sshoal init` or given by -i."""

    directory: Path
    inventory: tuple[str, ...] = ()
    host_paths: tuple[str, ...] = ()  # what hostPath volumes may use

    @property
    def store(self) -> Path:
        return self.directory / FILE

    @property
    def key(self) -> Path:
        return self.directory / "secrets.key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def lock(self) -> Path:
        return self.directory / "pass.lock"

    @property
    def bell(self) -> Path:
        return self.directory / "bell"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def inventory_sources(self) -> tuple[str, ...]:
        """Raises UsageError when no inventory was given or remembered."""
        if not self.inventory:
            raise UsageError(
                "no inventory: neither -i, nor $SSHOAL_INVENTORY, nor one remembered by this context",
                hint="sshoal init USER@HOST … writes one; or give -i hosts.ini",
            )
        return self.inventory


def find_context(directory: str, inventory: Sequence[str] = (), *, configured: Sequence[str] = ()) -> Context:
    """A context by its directory. Its inventory: as given, else of the environment, else as `configured`, else as the context remembers."""
    path = user_path(directory).absolute()
    from_environment = tuple(filter(None, os.environ.get("SSHOAL_INVENTORY", "").split(os.pathsep)))
    sources = tuple(inventory) or from_environment or tuple(configured)
    if "" in sources:  # as a path it would be the working directory
        raise UsageError("--inventory is given an empty name", hint="is a variable of your shell unset?")
    remembered = _remembered(path)
    allowed = _texts(path, remembered, "host_paths")
    if not all(one.startswith("/") for one in allowed):
        raise UsageError(
            f"{path / 'context.json'}: host_paths holds absolute paths", hint='"host_paths": ["/srv/data"]'
        )
    return Context(path, _absolute(sources) if sources else _texts(path, remembered, "inventory"), allowed)


def vault_ids() -> tuple[str, ...]:
    """$SSHOAL_VAULT_ID: vault ids of the inventory, separated by blanks, as typer reads repeatable options from the environment."""
    return tuple(os.environ.get("SSHOAL_VAULT_ID", "").split())


def executable_inventories() -> bool:
    """$SSHOAL_ALLOW_EXECUTABLE_INVENTORY: whether inventory files that are programs may be run."""
    return os.environ.get("SSHOAL_ALLOW_EXECUTABLE_INVENTORY", "").lower() in ("1", "true", "yes", "on")


def editor() -> str:
    """The command of the user's editor: $SSHOAL_EDITOR, $EDITOR, or vi."""
    return os.environ.get("SSHOAL_EDITOR", "").strip() or os.environ.get("EDITOR", "").strip() or "vi"


def remember_inventory(context: Context) -> None:
    """Makes the context's inventory the default of later commands; what else is remembered stays."""
    context.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    remembered = {**_remembered(context.directory), "inventory": list(context.inventory)}
    write_whole(context.directory / "context.json", json.dumps(remembered, indent=2) + "\n", mode=0o644)


def _remembered(directory: Path) -> dict[str, Any]:
    """context.json: {"inventory": [sources], "host_paths": [prefixes that hostPath volumes may use]}."""
    try:
        found = json.loads((directory / "context.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory / 'context.json'} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(
            f"{directory / 'context.json'} holds no object", hint='{"inventory": ["/etc/sshoal/hosts.ini"]}'
        )
    return found


def _texts(directory: Path, remembered: dict[str, Any], key: str) -> tuple[str, ...]:
    found = remembered.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UsageError(f"{directory / 'context.json'}: {key} is a list of texts")
    return tuple(found)


def _absolute(sources: Sequence[str]) -> tuple[str, ...]:
    """Paths independent of the working directory; lists of hosts are no paths and stay."""
    return tuple(source if is_host_list(source) else str(user_path(source).absolute()) for source in sources)


def now() -> Moment:
    """This machine's time."""
    return Moment(time.time(), _boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
