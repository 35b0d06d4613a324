"""The embedded store: one SQLite file. Stations 2 (store) and 5 (record intent).

Every write is one `BEGIN IMMEDIATE` transaction with `synchronous=FULL`: what was acknowledged survives a crash. Optimistic concurrency:
a record is only replaced when its version is still the one that was read (StoreConflict otherwise). A pass's first intent takes an epoch
in the same transaction; later ones of the same controller check that it is still theirs.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import tenacity

from controller.act.store.history import NOBODY, USUAL, Actor, Bounds, Event, History, Kept, Noted, Operation
from controller.act.store.history import SCHEMA as HISTORY_SCHEMA
from controller.act.store.records import Records, from_row, to_row
from controller.model.cluster import Node, Record
from controller.model.errors import AnotherController, StoreConflict, StoreError
from controller.model.plan import Change
from controller.model.text import printable
from nodeagent.protocol import Cursor, Epoch

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 5.0
_WAL_BYTES_MAX = 4 * 1024 * 1024  # what a long transaction leaves of the log beside the store
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "9p",
        "fuse.sshfs",
        "fuse.rclone",
        "lustre",
        "gpfs",
        "beegfs",
        "gfs2",
        "ocfs2",
    }
    | {
        "fuse.glusterfs",
        "vboxsf",
        "virtiofs",
        "fuse.vmhgfs-fuse",
        "prl_fs",
    }  # folders shared with a virtual machine among them
)

_DAMAGED = ("malformed", "not a database", "decode to UTF-8")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    uid TEXT PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    version INTEGER NOT NULL, data TEXT NOT NULL, UNIQUE (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE secrets (key TEXT PRIMARY KEY, hash TEXT NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (node TEXT PRIMARY KEY, instance TEXT NOT NULL, sequence INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class StoreSize:
    """Bytes on disk, how many of them are unused, those of the log beside it, and the history in it."""

    bytes: int
    free_bytes: int
    log_bytes: int
    kept: Kept


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction gave: this controller's epoch, and the new serials by node."""

    epoch: Epoch
    serials: Mapping[str, int]


class Store:
    """One open store. Not for several threads."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        actor: Actor = NOBODY,
        bounds: Bounds = USUAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens; with `create` makes a new one, with a new cluster id, where none is.

        Args:
            actor: who is named in the record of operations.
            clock: seconds since 1970, for how long events and operations are kept.

        Raises: StoreError when there is none, it is no store, it is of a newer sshoal, or it lies on a network file system.
        """
        if not create and not path.exists():
            raise StoreError(f"there is no store at {path}", hint="`sshoal init USER@HOST …` makes one")
        _refuse_network_file_system(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._database = _connect(path)
        self._cache = Records()
        self._cached_data_version = -1
        self._epoch: Epoch | None = None
        self._history = History(self._database, actor, bounds, clock)
        with readable_errors(path):
            self._migrate()
            self.cluster_id = self._meta("cluster")

    def close(self) -> None:
        self._database.close()

    # ---- reading ----

    def load(self) -> Records:
        """All records, from memory where nothing changed. The result must not be changed by the caller."""
        with readable_errors(self.path):
            if self.data_version() != self._cached_data_version:
                self._check_once()
                self._database.execute("BEGIN")
                try:
                    self._catch_up()
                finally:
                    self._database.execute("ROLLBACK")
            return self._cache

    def epoch(self) -> Epoch:
        """The highest epoch that any controller of this store has taken; number 0 before the first."""
        with readable_errors(self.path):
            # One statement: between two, another controller may take the next one
            rows = self._database.execute("SELECT key, value FROM meta WHERE key IN ('epoch_number', 'epoch_id')")
            found: dict[str, str] = dict(rows.fetchall())
            if len(found) < 2:
                raise damaged(self.path, "it has no epoch")
            return Epoch(int(found["epoch_number"]), found["epoch_id"])

    @property
    def loaded_version(self) -> int:
        """The data_version that the last load() gave the records of."""
        return self._cached_data_version

    def data_version(self) -> int:
        """Changes whenever another connection has committed. Costs a few microseconds: `watch` asks it many times a second."""
        with readable_errors(self.path):
            row = self._database.execute("PRAGMA data_version").fetchone()
        return int(row[0])

    def sealed_secrets(self, keys: Iterable[str]) -> dict[str, tuple[str, bytes]]:
        """Sealed values of secrets, as {"namespace/name": (hash, sealed)}; those that do not exist are left out."""
        found: dict[str, tuple[str, bytes]] = {}
        with readable_errors(self.path):
            for key in keys:
                row = self._database.execute("SELECT hash, sealed FROM secrets WHERE key = ?", (key,)).fetchone()
                if row:
                    found[key] = (row[0], row[1])
        return found

    def events(self, *, kind: str = "", namespace: str = "", name: str = "", limit: int = 500) -> list[Event]:
        """The newest events, oldest first; empty arguments match all."""
        return self._history.events(kind=kind, namespace=namespace, name=name, limit=limit)

    def operations(
        self, *, text: str = "", node: str = "", user: str = "", serial: int = 0, limit: int = 500
    ) -> list[Operation]:
        """The newest operations, oldest first; empty arguments match all. `text` names an object, as in "Deployment shop/web"."""
        with readable_errors(self.path):
            return self._history.operations(text=text, node=node, user=user, serial=serial, limit=limit)

    def size(self) -> StoreSize:
        """How large the store is."""
        with readable_errors(self.path):
            pages, free, page_bytes = (
                int(self._database.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            wal = self.path.with_name(self.path.name + "-wal")
            wal_bytes = wal.stat().st_size if wal.exists() else 0
            return StoreSize(pages * page_bytes, free * page_bytes, wal_bytes, self._history.kept())

    def cursors(self) -> dict[str, Cursor]:
        """How far each node's events have been taken over."""
        with readable_errors(self.path):
            rows = self._database.execute("SELECT node, instance, sequence FROM cursors")
            return {node: Cursor(instance, sequence) for node, instance, sequence in rows}

    # ---- writing ----

    def edit(
        self,
        put: Sequence[Record] = (),
        remove: Sequence[Record] = (),
        *,
        events: Sequence[Event] = (),
        secrets: Mapping[str, tuple[str, bytes]] | None = None,
        forget_secrets: Sequence[str] = (),
        because: Iterable[str] = (),
    ) -> None:
        """A user's verb: one transaction that needs no controller lock. It has its row in the record of operations.

        Args:
            secrets: sealed values to store, {"namespace/name": (hash, sealed)}.
            because: what the row says of it.
        Raises: StoreConflict when a record changed since it was read.
        """
        with self._transaction():
            self._write(put, remove, events)
            for key, (digest, sealed) in (secrets or {}).items():
                self._database.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?, ?)", (key, digest, sealed))
            for key in forget_secrets:
                self._database.execute("DELETE FROM secrets WHERE key = ?", (key,))
            if put or remove or secrets or forget_secrets:
                self._history.note_edit((*put, *remove), because)

    def commit(
        self,
        changes: Sequence[Change],
        *,
        new_serials: Iterable[str] = (),
        events: Sequence[Event] = (),
        cursors: Mapping[str, Cursor] | None = None,
    ) -> Committed:
        """A pass's intents: one transaction, with an epoch (taken by this controller's first one) and a serial per changed wanted set.

        Args:
            new_serials: names of nodes whose wanted set changed; their records (among `changes` or stored) get the next serials.
        Raises: StoreConflict; AnotherController when a newer controller has taken an epoch since.
        """
        with self._transaction():
            epoch = self._hold_epoch()
            serials = {}
            for node in new_serials:
                serials[node] = self._count("serial")
            last = {
                change.record.meta.uid: change for change in changes
            }  # later changes of a record build on earlier ones
            put = [_with_serial(change.record, serials) for change in last.values() if change.verb != "remove"]
            gone = [change.record for change in last.values() if change.verb == "remove" and change.record.meta.version]
            self._write(put, gone, events)
            self._history.note_orders(epoch.number, serials, changes)
            for node, cursor in (cursors or {}).items():
                self._database.execute(
                    "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (node, cursor.instance, cursor.sequence)
                )
        self._epoch = epoch
        return Committed(epoch, serials)

    def take_epoch(self) -> Epoch:
        """This controller's epoch, for a push that repeats what is already recorded.

        Raises: AnotherController when a newer controller has taken an epoch since.
        """
        return self.commit(()).epoch if self._epoch is None else self._hold_epoch()

    def answered(self, outcomes: Mapping[int, str]) -> None:
        """What agents said to their orders, by serial: ACCEPTED, or why not.

        Not synced, which would cost as much as recording the order did: a power cut may take an answer, never an order.
        """
        self._database.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._history.answered(outcomes)
        finally:
            self._database.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def noted(self, verb: str, objects: Iterable[str], *, node: str = "") -> Iterator[Noted]:
        """Records an operation that is no transaction of the store: before it begins, and then how it ended."""
        with self._transaction():
            number = self._history.note(verb, objects, node=node, epoch=self.epoch().number)
        outcome = "interrupted"
        try:
            noted = Noted()
            yield noted
            outcome = noted.outcome
        except Exception as error:
            outcome = f"failed: {error}"
            raise
        finally:
            with contextlib.suppress(StoreError), self._transaction():  # the row is there; its end stays unknown
                self._history.conclude(number, outcome)

    # ---- inside ----

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with readable_errors(self.path):
            self._check_once()
            _begin_immediate(self._database)
            before = self._cache
            try:
                self._catch_up()  # only now nobody can write any more: what others wrote until here must not be passed by
                before = self._cache
                self._cache = before.copy()
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._cache = before
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _write(self, put: Sequence[Record], remove: Sequence[Record], events: Sequence[Event]) -> None:
        if put or remove:
            version = self._count("counter")
            for record in remove:
                self._remove(record)
            for record in put:
                self._put(record, version)
            self._cache.counter = version
        self._history.add_events(events)

    def _put(self, record: Record, version: int) -> None:
        meta = record.meta
        stored = self._database.execute("SELECT version FROM records WHERE uid = ?", (meta.uid,)).fetchone()
        if (stored[0] if stored else 0) != meta.version:
            raise StoreConflict(f"{meta.kind} {meta.key} has changed meanwhile", hint="try again")
        written = replace(record, meta=replace(meta, version=version))
        try:
            self._database.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (uid) DO UPDATE SET version = excluded.version, data = excluded.data",
                (meta.uid, meta.kind, meta.namespace, meta.name, version, to_row(record)),
            )
        except sqlite3.IntegrityError:
            raise StoreConflict(f"{meta.kind} {meta.key} exists already", hint="try again") from None
        self._cache.put(written)

    def _remove(self, record: Record) -> None:
        meta = record.meta
        done = self._database.execute("DELETE FROM records WHERE uid = ? AND version = ?", (meta.uid, meta.version))
        if done.rowcount != 1:
            raise StoreConflict(f"{meta.kind} {meta.key} has changed meanwhile", hint="try again")
        if meta.kind == "Secret":
            self._database.execute("DELETE FROM secrets WHERE key = ?", (meta.key,))
        self._cache.remove(record)

    def _hold_epoch(self) -> Epoch:
        stored = self.epoch()
        if self._epoch is not None:
            if stored != self._epoch:
                raise AnotherController(
                    f"another controller took over (epoch {stored.number}, ours was {self._epoch.number})",
                    hint="this one has stopped; nothing is lost",
                )
            return self._epoch
        epoch = Epoch(stored.number + 1, uuid.uuid4().hex)
        self._set_meta("epoch_number", str(epoch.number))
        self._set_meta("epoch_id", epoch.id)
        return epoch

    def _count(self, name: str) -> int:
        value = int(self._meta(name)) + 1
        self._set_meta(name, str(value))
        if name == "serial":
            self._cache.serial = value
        return value

    def _meta(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise damaged(self.path, f"it has no {key}")
        return str(row[0])

    def _set_meta(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _check_once(self) -> None:
        """Before anything is decided on what is read: a torn page is not to be taken for "nothing declared" (FAULTS A7)."""
        if self._cached_data_version != -1:
            return
        (verdict,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {verdict}")

    def _catch_up(self) -> None:
        """Brings the records in memory up to date, inside a transaction: of what changed only rows newer than what is held are read."""
        seen = self.data_version()
        if seen == self._cached_data_version:
            return
        # A counter that went back is that of a restored backup, of which nothing is known: it may even be another cluster's
        restored = int(self._meta("counter")) < self._cache.counter
        fresh = Records() if restored else self._cache.copy()
        self.cluster_id = self._meta("cluster") if restored else self.cluster_id
        rows = self._database.execute("SELECT kind, version, data FROM records WHERE version > ?", (fresh.counter,))
        for kind, version, data in rows.fetchall():
            fresh.put(from_row(kind, version, data))
        present = {uid for (uid,) in self._database.execute("SELECT uid FROM records")}
        for record in [record for record in fresh.all() if record.meta.uid not in present]:
            fresh.remove(record)
        fresh.counter = int(self._meta("counter"))
        fresh.serial = int(self._meta("serial"))
        self._cache, self._cached_data_version = fresh, seen

    def _migrate(self) -> None:
        found = int(self._database.execute("PRAGMA user_version").fetchone()[0])
        if found == SCHEMA_VERSION:
            return
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer sshoal (schema {found})", hint="upgrade sshoal on this machine"
            )
        _begin_immediate(self._database)
        try:
            # Not made by another process meanwhile
            if int(self._database.execute("PRAGMA user_version").fetchone()[0]) == 0:
                for statement in (_SCHEMA + HISTORY_SCHEMA).split(";\n"):
                    if statement.strip():
                        self._database.execute(statement)
                for key, value in _first_meta().items():
                    self._set_meta(key, value)
                self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self.path.chmod(0o600)


def _first_meta() -> dict[str, str]:
    return {"cluster": str(uuid.uuid4()), "counter": "0", "serial": "0", "epoch_number": "0", "epoch_id": ""}


def _with_serial(record: Record, serials: Mapping[str, int]) -> Record:
    if isinstance(record, Node) and record.meta.name in serials:
        return replace(record, serial=serials[record.meta.name])
    return record


def _connect(path: Path) -> sqlite3.Connection:
    with readable_errors(path):
        try:
            return _opened(path, "NORMAL")
        except sqlite3.OperationalError as error:
            if not any(word in str(error) for word in ("disk I/O error", "full")):
                raise
            # A full disk has no room for the index that several processes share beside the store. Alone, SQLite keeps it in memory: what is
            # stored can be read, and the first write tells what is wrong.
            return _opened(path, "EXCLUSIVE")


def _opened(path: Path, locking: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        database.execute(f"PRAGMA locking_mode = {locking}")
        if not path.stat().st_size:  # counts for a store that is just made, and would begin a write on any other
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_MAX:d}")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA user_version").fetchone()
    except BaseException:
        database.close()
        raise
    return database


@tenacity.retry(
    retry=tenacity.retry_if_exception(
        lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
    ),
    stop=tenacity.stop_after_delay(3 * _BUSY_TIMEOUT_S),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _begin_immediate(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:  # sqlite3 could not even read SQLite's own message, which quotes the file
        raise damaged(path, "its texts are no UTF-8") from error
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text:
            raise StoreError(
                f"no space left for the store {path}; nothing was changed", hint="free some disk space"
            ) from error
        if "locked" in text or "busy" in text:
            raise StoreError(f"the store {path} is locked by another process", hint="try again") from error
        if any(word in text for word in _DAMAGED):
            raise damaged(path, printable(text)) from error
        raise StoreError(f"the store {path}: {text}") from error


def damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        f"the store {path} is damaged ({why}); it was left as it is",
        hint="sshoal restore FILE puts a backup in its place and keeps what is there now (with its -wal and -shm) beside it",
    )


def _refuse_network_file_system(path: Path) -> None:
    """SQLite's locks are not to be trusted there (FAULTS A9)."""
    kind = _file_system_of(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), whose locks cannot be trusted",
            hint="use a local directory",
        )


def _file_system_of(path: Path) -> str:
    """The type of the mount that holds `path`, by the longest mount point; "" where /proc does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    wanted = path.resolve()
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount_point = left.split()[4].replace("\\040", " ")
        if (wanted == Path(mount_point) or wanted.is_relative_to(mount_point)) and len(mount_point) >= best:
            best, kind = len(mount_point), right.split()[0]
    return kind
