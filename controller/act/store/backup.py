"""Backups of a store: one file of mode 0600, made while others work, and put back as one transaction.

The key of the secrets is in it only when that is asked for: without it, a stolen backup tells no secret's value.

A restored store takes an epoch far above its own and above that of the store it replaces, so that no controller that still works on another
copy shares it, and hosts take its orders, however often the same backup is restored. Serials stay as they were saved: an agent that was
given something since is ahead of the store, and then passes do nothing (DESIGN §4).
"""

from __future__ import annotations

import base64
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from controller.act.secrets import Sealer
from controller.act.store.sqlite import Store, readable_errors
from controller.model.errors import StoreError, UsageError

EPOCHS_SKIPPED = 1_000_000  # more than a cluster takes between two backups: one each time a controller starts
BEFORE = ".before-restore"
_SUFFIXES = ("", "-wal", "-shm")
_MAGIC = b"SQLite format 3\0"
_TABLE = "CREATE TABLE backup (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. `key` is the content of the key file; None when it was left out."""

    cluster: str
    taken_wall_s: float
    objects: int
    secrets: int
    key: bytes | None


def write_backup(store: Path, target: Path, *, key: bytes | None, now_s: float, replace: bool = False) -> Backup:
    """Saves the store as it is at one moment. Raises StoreError, UsageError when `target` exists and may not be replaced.

    Only what looks like an older backup is ever replaced: a slip of the hand must not cost the key of the secrets, or the inventory.
    """
    if target.exists() and not replace:
        raise UsageError(f"{target} exists already", hint="another name, or --force")
    if target.exists() and store.exists() and target.samefile(store):
        raise UsageError(f"{target} is the store itself", hint="another name")
    if target.exists() and not _is_database(target):
        raise UsageError(f"{target} is no backup, and only those are replaced", hint="another name")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}")
    with _private_copy(store, target.parent) as copy:
        with readable_errors(copy), closing(sqlite3.connect(copy, isolation_level=None)) as database:
            database.execute(_TABLE)
            facts = {"taken": repr(now_s)} | ({"secrets.key": base64.b64encode(key).decode()} if key else {})
            database.executemany("INSERT INTO backup VALUES (?, ?)", facts.items())
            database.execute("PRAGMA journal_mode = DELETE")  # one file, complete in itself
        found = read_backup(copy)
        _sync(copy)
        copy.replace(target)
        _sync(target.parent)
    return found


def read_backup(path: Path) -> Backup:
    """Looks at a backup without changing it. Raises UsageError when it is none, StoreError when it is damaged or of a newer sshoal."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if not _is_database(path):
        raise _no_backup(path)
    with _private_copy(path) as copy:
        with readable_errors(path), closing(sqlite3.connect(copy)) as database:
            (verdict,) = database.execute("PRAGMA quick_check").fetchone()
            if verdict != "ok":
                raise StoreError(f"{path} is damaged: {verdict}", hint="take an older backup")
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"backup", "meta", "records"} <= tables:
                raise _no_backup(path)
            facts: dict[str, str] = dict(database.execute("SELECT key, value FROM backup"))
        with closing(Store(copy)) as store:  # refuses what a newer sshoal wrote, and what cannot be read
            records = list(store.load().all())
            key = base64.b64decode(facts["secrets.key"]) if "secrets.key" in facts else None
            secrets = sum(record.meta.kind == "Secret" for record in records)
            return Backup(store.cluster_id, float(facts["taken"]), len(records), secrets, key)


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _no_backup(path: Path) -> UsageError:
    return UsageError(f"{path} is no backup of sshoal's", hint="sshoal backup FILE makes one")


def restore_backup(path: Path, store: Path, key_file: Path, *, now_s: float) -> Path | None:
    """Puts a backup in place of a store. The caller holds the pass lock. Returns where what was there is kept, None if nothing was.

    That is beside it, under its name with BEFORE, and a number where an earlier one has that name. The key comes from the backup; where
    that has none, it is the one, of those that are there or were put aside, which opens the restored secrets.
    Raises StoreError, UsageError; then the store is what it was.
    """
    found = read_backup(path)
    with _private_copy(path, store.parent) as copy:  # first: `path` may be what the last restore put aside
        least = _epoch_of(store, now_s)
        kept, is_moved = _keep(store, now_s)
        try:
            with readable_errors(copy), closing(sqlite3.connect(copy, isolation_level=None)) as database:
                database.execute("DROP TABLE backup")
                _skip_epochs(database, least)
            with closing(Store(store, create=True)), readable_errors(store):
                _copy(copy, store)
        except BaseException:
            if kept is None or is_moved:
                _remove(store)  # the new one that was begun
            if kept is not None and is_moved:
                _move(kept, store)
            raise
    if found.key is not None:
        _write_key(key_file, found.key)
    elif not opens(key_file, store):
        aside = sorted(key_file.parent.glob(f"{key_file.name}{BEFORE}*"))
        if fitting := next((file for file in aside if opens(file, store)), None):
            _write_key(key_file, fitting.read_bytes())
    return kept


def opens(key_file: Path, store: Path) -> bool:
    """Whether a key file's key is the one that the store's secrets were sealed with. Of a store without secrets each one is."""
    with closing(Store(store)) as opened:
        names = [record.meta.key for record in opened.load().all() if record.meta.kind == "Secret"]
        sealed = opened.sealed_secrets(names)
    try:
        sealer = Sealer.load(key_file) if sealed else None
        for name, (digest, data) in list(sealed.items())[:1]:
            assert sealer is not None
            sealer.unseal(name, digest, data)
    except StoreError:
        return False
    return True


def _keep(store: Path, now_s: float) -> tuple[Path | None, bool]:
    """Beside itself: as a backup, or, where it is too damaged or the disk too full for that, its files as they are: moved."""
    if not store.exists():
        return None, False
    kept = _unused(store.with_name(store.name + BEFORE))
    try:
        write_backup(store, kept, key=None, now_s=now_s)
    except (StoreError, UsageError):
        _move(store, kept)
        return kept, True
    return kept, False


def _move(source: Path, target: Path) -> None:
    for suffix in _SUFFIXES:
        file = source.with_name(source.name + suffix)
        if file.exists():
            file.replace(target.with_name(target.name + suffix))


def _remove(store: Path) -> None:
    for suffix in _SUFFIXES:
        store.with_name(store.name + suffix).unlink(missing_ok=True)


def _epoch_of(store: Path, now_s: float) -> int:
    """The epoch of the store that is to be replaced: hosts know it. Of a lost or damaged one the time stands for it.

    In microseconds: what a restore skips is a second then, so that time is ahead of any number of restores.
    """
    try:
        with closing(sqlite3.connect(f"file:{_quoted(store)}?mode=ro", uri=True, timeout=5)) as database:
            return int(*database.execute("SELECT value FROM meta WHERE key = 'epoch_number'").fetchone())
    except (sqlite3.Error, TypeError, ValueError):
        return int(now_s * 1e6)


def _skip_epochs(database: sqlite3.Connection, least: int) -> None:
    (number,) = database.execute("SELECT value FROM meta WHERE key = 'epoch_number'").fetchone()
    fresh = {"epoch_number": str(max(int(number), least) + EPOCHS_SKIPPED), "epoch_id": uuid.uuid4().hex}
    database.executemany("UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in fresh.items()])


def _write_key(key_file: Path, key: bytes) -> None:
    """Raises StoreError; then the key that was there is there."""
    if key_file.exists() and key_file.read_bytes() == key:
        return
    new = key_file.with_name(key_file.name + ".new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(descriptor)
        if key_file.exists():
            key_file.replace(_unused(key_file.with_name(key_file.name + BEFORE)))
        new.replace(key_file)
    except OSError as error:
        if new.is_file():
            new.unlink()
        raise StoreError(f"{key_file} cannot be written: {error.strerror}", hint="then restore it again") from None


def _unused(file: Path) -> Path:
    """That name, or it with a number: what was put aside may be the only one of its kind."""
    names = (file.with_name(f"{file.name}.{number}") for number in count(2))
    return file if not file.exists() else next(name for name in names if not name.exists())


@contextmanager
def _private_copy(source: Path, directory: Path | None = None) -> Iterator[Path]:
    """A copy of a database, readable by its owner alone; gone at the end, unless it was moved away."""
    try:
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".sshoal-backup-", dir=directory)  # mode 0600; SQLite keeps it
    except OSError as error:
        place = directory or "for temporary files (TMPDIR)"
        raise StoreError(f"{place}: a copy of {source} cannot be written there: {error.strerror}") from None
    os.close(descriptor)
    copy = Path(name)
    try:
        with readable_errors(source):
            try:
                _copy(source, copy)
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                raise StoreError(  # it is not where `source` lies
                    f"no space left in {copy.parent} for a copy of {source}", hint="free some disk space there"
                ) from None
        yield copy
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """SQLite's own backup: one moment of `source`, whoever writes meanwhile; one transaction in `target`."""
    with (
        closing(sqlite3.connect(f"file:{_quoted(source)}?mode=ro", uri=True, timeout=5)) as reading,
        closing(sqlite3.connect(target, timeout=5)) as writing,
    ):
        reading.backup(writing)


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.resolve()))  # names of files need not be UTF-8


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
