"""Commands that keep the store: backup, restore. What is in a backup stands in act/store/backup.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.act.settings import Context
    from controller.act.store.backup import Backup


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; only you can read it.")],
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Also the key of the secrets: who has the file can then read them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a backup that is there.")] = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Save the store: everything declared, and where it runs. May be done while passes run.

    Examples:
        sshoal backup /var/backups/sshoal.db
        sshoal backup sshoal.db --force
        sshoal backup /root/sshoal-with-key.db --with-key
    """
    from controller.act.settings import find_context, now
    from controller.act.store.backup import write_backup
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Settings
    from controller.model.errors import StoreError

    context = find_context(context_dir)
    if not context.store.exists():
        raise StoreError(f"there is no store at {context.store}", hint="`sshoal init USER@HOST …` makes one")
    key = None
    if with_key:
        try:
            key = context.key.read_bytes()
        except FileNotFoundError:
            print("note: there is no key: no secret was ever declared here", file=sys.stderr)
    objects = [f"File {file.absolute()}", *(["the key of the secrets"] if key else [])]
    with Wiring(context, Settings()).noted(*objects):
        saved = write_backup(context.store, file.absolute(), key=key, now_s=now().wall_s, replace=force)
    print(f"{file}: {saved.objects} objects of cluster {saved.cluster}")
    if saved.secrets and saved.key is None:
        print(
            f"note: the values of {saved.secrets} secrets are sealed; keep {context.key} elsewhere, or use --with-key",
            file=sys.stderr,
        )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `sshoal backup` wrote.")],
    yes: options.Yes = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Put a backup in place of the store; what was there is kept beside it. Shows what it replaces, and asks.

    Hosts that were given newer orders since are not led back: passes then do nothing, and say so.

    Examples:
        sshoal restore /var/backups/sshoal.db
        sshoal restore sshoal.db --yes
    """
    from controller.act.bell import ring
    from controller.act.lock import pass_lock
    from controller.act.settings import find_context, now
    from controller.act.store.backup import read_backup, restore_backup
    from controller.cli.hosts import confirm
    from controller.cli.output import age
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Settings

    context = find_context(context_dir)
    found = read_backup(file)
    print(f"{file}: {found.objects} objects of cluster {found.cluster}, {age(now().wall_s - found.taken_wall_s)} old")
    if context.store.exists():
        print(f"it replaces {_standing(context.store)}")
        confirm("replace it?", yes)
    context.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with pass_lock(context.lock):
        kept = restore_backup(file, context.store, context.key, now_s=now().wall_s)
    with Wiring(context, Settings()).noted(f"File {file.absolute()}"):
        pass  # in the store that is in force now
    ring(context.bell)
    print(f"restored to {context.store}" + (f"; what was there is in {kept}" if kept else ""))
    _tell_key(found, context)
    print("next: sshoal reconcile --settle")


def _standing(store: Path) -> str:
    from contextlib import closing

    from controller.act.store import Store
    from controller.model.errors import StoreError

    try:
        with closing(Store(store)) as present:
            return f"{len(list(present.load().all()))} objects of cluster {present.cluster_id} in {store}"
    except StoreError as error:
        return f"a store that cannot be read ({error.message})"


def _tell_key(found: Backup, context: Context) -> None:
    from controller.act.store.backup import opens

    if found.secrets and not opens(context.key, context.store):
        print(f"note: {found.secrets} secrets cannot be read until their key is back: {context.key}", file=sys.stderr)
