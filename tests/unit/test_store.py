"""The embedded store over real SQLite files: what was acknowledged stays, conflicts are told, and the file is never guessed at."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.act.store import Bounds, Event, Store, sqlite
from controller.model.cluster import Pod
from controller.model.errors import AnotherController, StoreConflict, StoreError
from controller.model.plan import Change
from nodeagent.protocol import Cursor
from tests.builders import bare_pod, config_map, deployment, namespace, node, replica_set, secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path, create=True)
    yield opened
    opened.close()


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """Another process's connection to the same store."""
    opened = Store(store.path)
    yield opened
    opened.close()


def bind(pod: Pod, node_name: str) -> Change:
    return Change("bind", replace(pod, node=node_name), "it fits")


# ---- opening ------------------------------------------------------------------------------------------------------------


def test_a_missing_store_is_told_with_the_command_that_makes_one(path: Path) -> None:
    with pytest.raises(StoreError, match="no store") as caught:
        Store(path)
    assert "sshoal init" in caught.value.hint
    assert not path.exists()


def test_a_store_keeps_its_cluster_id_and_is_readable_by_its_owner_only(store: Store, other: Store) -> None:
    assert store.cluster_id == other.cluster_id
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_the_store_writes_ahead_and_syncs_every_commit(store: Store) -> None:
    pragma = store._database.execute
    assert pragma("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert pragma("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_store_of_a_newer_sshoal_is_refused_and_left_alone(store: Store) -> None:
    with sqlite3.connect(store.path) as database:
        database.execute(f"PRAGMA user_version = {sqlite.SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer sshoal"):
        Store(store.path)
    assert store._database.execute("PRAGMA user_version").fetchone()[0] == sqlite.SCHEMA_VERSION + 1


def test_a_file_that_is_no_store_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"not a database, but somebody's letter" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="damaged"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_file_system_of", lambda _: kind)
    with pytest.raises(StoreError, match=f"network file system \\({kind}\\)"):
        Store(path, create=True)
    assert not path.exists()


def test_the_file_system_of_a_path_is_that_of_its_longest_mount_point() -> None:
    assert sqlite._file_system_of(Path("/proc/self")) == "proc"
    assert sqlite._file_system_of(Path("/sys/kernel")) == "sysfs"


# ---- records ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        deployment("web", 3),
        replica_set(),
        bare_pod(),
        node("n1", cordoned=True),
        config_map("settings", {"a": "1"}),
        secret("login", "hash"),
        namespace("shop"),
    ],
    ids=lambda record: record.meta.kind,
)
def test_every_kind_of_record_comes_back_as_it_was_written(record: object, store: Store, other: Store) -> None:
    store.edit([record])  # type: ignore[list-item]
    for reader in (store, other):
        (found,) = reader.load().all()
        assert replace(found, meta=replace(found.meta, version=0)) == record
        assert found.meta.version == reader.load().counter == 1


def test_a_record_that_changed_since_it_was_read_is_not_overwritten(store: Store, other: Store) -> None:
    store.edit([deployment("web", 3)])
    (mine,) = store.load().deployments.values()
    (theirs,) = other.load().deployments.values()
    other.edit([replace(theirs, template_hash="theirs")])
    with pytest.raises(StoreConflict, match="default/web has changed"):
        store.edit([replace(mine, template_hash="mine")])
    assert [one.template_hash for one in store.load().deployments.values()] == ["theirs"]


def test_a_removal_of_a_record_that_changed_is_a_conflict(store: Store, other: Store) -> None:
    store.edit([deployment("web", 3)])
    (mine,) = store.load().deployments.values()
    (theirs,) = other.load().deployments.values()
    other.edit([replace(theirs, template_hash="theirs")])
    with pytest.raises(StoreConflict):
        store.edit(remove=[mine])
    assert len(store.load().deployments) == 1


def test_two_objects_of_one_name_are_a_conflict(store: Store) -> None:
    first = deployment("web", 3)
    store.edit([first])
    with pytest.raises(StoreConflict, match="exists already"):
        store.edit([replace(first, meta=replace(first.meta, uid="another-uid"))])


def test_a_transaction_with_a_conflict_changes_nothing_at_all(store: Store) -> None:
    store.edit([deployment("web", 3)])
    before = store.load().copy()
    stale = deployment("web", 5)
    with pytest.raises(StoreConflict):
        store.edit([config_map("new", {}), stale], events=[Event(1.0, "Scaled", "", "Deployment", "default", "web")])
    assert store.load() == before
    assert store.events() == []
    reopened = Store(store.path)
    assert reopened.load() == before
    reopened.close()


# ---- two connections ----------------------------------------------------------------------------------------------------


def test_what_another_connection_wrote_is_seen(store: Store, other: Store) -> None:
    version = store.data_version()
    other.edit([deployment("web", 3)])
    assert store.data_version() != version
    assert len(store.load().deployments) == 1


def test_what_another_connection_removed_is_gone(store: Store, other: Store) -> None:
    store.edit([deployment("web", 3), deployment("api", 1)])
    (web,) = [one for one in other.load().deployments.values() if one.meta.name == "web"]
    other.edit(remove=[web])
    assert [one.meta.name for one in store.load().deployments.values()] == ["api"]


def test_nothing_is_read_again_while_nothing_changed(store: Store) -> None:
    store.edit([deployment("web", 3)])
    assert store.load() is store.load()


def test_a_commit_that_slips_in_before_a_transaction_is_seen_after_it(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records in memory must not pass by a change of another process that came just before a write of ours."""
    store.edit([deployment("web", 3)])
    begin = sqlite._begin_immediate

    def late_begin(database: sqlite3.Connection) -> None:
        if database is store._database:
            other.edit([config_map("slipped-in", {})])
        begin(database)

    monkeypatch.setattr(sqlite, "_begin_immediate", late_begin)
    store.edit([config_map("ours", {})])
    assert sorted(one.meta.name for one in store.load().declared.values()) == ["ours", "slipped-in"]


def test_a_lock_held_for_long_is_told_as_such(store: Store, other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite._begin_immediate.retry, "stop", sqlite.tenacity.stop_after_attempt(2))
    store._database.execute("PRAGMA busy_timeout = 1")
    other._database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"):
        store.edit([deployment("web", 3)])
    other._database.execute("ROLLBACK")
    store.edit([deployment("web", 3)])


# ---- epochs and serials -------------------------------------------------------------------------------------------------


def test_a_controller_takes_an_epoch_with_its_first_commit_and_keeps_it(store: Store) -> None:
    assert store.epoch().number == 0
    first = store.commit(()).epoch
    assert first.number == 1
    assert store.commit([Change("create", deployment("web", 3), "declared")]).epoch == first == store.take_epoch()


def test_an_epoch_is_never_the_number_of_one_and_the_id_of_another(store: Store, other: Store) -> None:
    """Beside a controller that begins, a look would show its hosts as those of a copied store; a takeover would bring such an epoch."""
    first = store.commit(()).epoch
    read: list[str] = []

    def taken_meanwhile(statement: str) -> None:
        read.append(statement)
        if len(read) == 2:
            newer = Store(store.path)
            newer.commit(())
            newer.close()

    other._database.set_trace_callback(taken_meanwhile)
    assert other.epoch() == first


def test_an_older_controller_is_fenced_off_at_its_next_commit(store: Store, other: Store) -> None:
    store.commit(())
    newer = other.commit(()).epoch
    with pytest.raises(AnotherController, match="epoch 2, ours was 1"):
        store.commit([Change("create", deployment("web", 3), "declared")])
    with pytest.raises(AnotherController):
        store.take_epoch()
    assert store.epoch() == newer
    assert not other.load().deployments


def test_a_users_edit_needs_no_epoch_and_fences_nobody_off(store: Store, other: Store) -> None:
    store.commit(())
    other.edit([deployment("web", 3)])
    assert store.commit(()).epoch.number == 1


def test_each_changed_wanted_set_gets_the_next_serial_of_the_store(store: Store) -> None:
    nodes = [node("n1", 1), node("n2", 2)]
    done = store.commit([Change("create", one, "joined") for one in nodes], new_serials=["n1", "n2"])
    assert done.serials == {"n1": 1, "n2": 2}
    n1 = store.load().nodes["n1"]
    assert (n1.serial, store.load().nodes["n2"].serial) == (1, 2)
    store.commit([Change("update", replace(n1, digest="other"), "its set changed")], new_serials=["n1"])
    assert (store.load().nodes["n1"].serial, store.load().serial) == (3, 3)


def test_the_last_change_of_a_record_counts_and_a_record_made_and_removed_at_once_never_was(store: Store) -> None:
    web = deployment("web", 3)
    pod = bare_pod()
    store.commit(
        [
            Change("create", web, "declared"),
            Change("update", replace(web, template_hash="later"), "edited"),
            Change("create", pod, "declared"),
            Change("remove", pod, "gone"),
        ]
    )
    assert [one.template_hash for one in store.load().deployments.values()] == ["later"]
    assert not store.load().pods


def test_an_empty_commit_writes_no_record_version(store: Store) -> None:
    store.commit(())
    counter = store.load().counter
    store.commit(())
    assert store.load().counter == counter


def test_cursors_are_kept_with_the_events_they_count(store: Store, other: Store) -> None:
    told = Event(10.0, "Started", "container main", "Pod", "default", "web-1", "n1")
    store.commit((), events=[told], cursors={"n1": Cursor("instance-1", 7)})
    assert other.cursors() == {"n1": Cursor("instance-1", 7)}
    assert [one.reason for one in other.events()] == ["Started"]


# ---- events -------------------------------------------------------------------------------------------------------------


def event(wall_s: float, message: str = "back-off", name: str = "web-1") -> Event:
    return Event(wall_s, "BackOff", message, "Pod", "default", name, "n1", True)


def test_an_event_told_again_within_ten_minutes_is_counted(store: Store) -> None:
    store.edit(events=[event(100.0), event(150.0), event(700.0)])
    (told,) = store.events()
    assert (told.count, told.first_wall_s, told.wall_s) == (3, 100.0, 700.0)


@pytest.mark.parametrize("later", [event(1000.0), event(150.0, message="other"), event(150.0, name="web-2")])
def test_a_later_or_other_event_is_a_row_of_its_own(later: Event, store: Store) -> None:
    store.edit(events=[event(100.0), later])
    assert [one.count for one in store.events()] == [1, 1]


def test_events_are_a_ring(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(store.path, bounds=Bounds(events=10))
    for number in range(35):
        store.edit(events=[event(float(number), message=f"event {number}")])
    assert [one.message for one in store.events()] == [f"event {number}" for number in range(25, 35)]


def test_events_are_found_by_their_object_newest_last(store: Store) -> None:
    store.edit(events=[event(3.0, "c"), event(1.0, "a"), event(2.0, "b", name="web-2")])
    assert [one.message for one in store.events(kind="Pod", namespace="default", name="web-1")] == ["a", "c"]
    assert [one.message for one in store.events(limit=2)] == ["b", "c"]


# ---- secrets ------------------------------------------------------------------------------------------------------------


def test_sealed_values_are_written_with_their_record_and_removed_with_it(store: Store) -> None:
    record = secret("login", "h1")
    store.edit([record], secrets={"default/login": ("h1", b"sealed")})
    assert store.sealed_secrets(["default/login", "default/other"]) == {"default/login": ("h1", b"sealed")}
    (stored,) = store.load().declared.values()
    store.edit(remove=[stored])
    assert store.sealed_secrets(["default/login"]) == {}


# ---- when things break --------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_changes_nothing_and_reading_goes_on(store: Store) -> None:
    store.edit([deployment("web", 3)])
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"no space left .* nothing was changed"):
        store.edit([config_map("large", {"a": "x" * 200_000})])
    assert [one.meta.name for one in store.load().all()] == ["web"]
    store._database.execute("PRAGMA max_page_count = 1000000")
    store.edit([config_map("large", {"a": "x" * 200_000})])
    assert len(store.load().declared) == 1


@pytest.mark.parametrize(
    "read",
    [
        Store.load,
        Store.epoch,
        Store.cursors,
        Store.data_version,
        lambda store: store.sealed_secrets(["default/login"]),
    ],
    ids=["records", "epoch", "cursors", "version", "secrets"],
)
def test_whatever_a_pass_reads_fails_as_the_store_and_not_as_a_bug(
    store: Store, read: Callable[[Store], object]
) -> None:
    store._database.close()  # as good as any failure of SQLite's
    with pytest.raises(StoreError):
        read(store)


WRITER = """
    import sys
    from pathlib import Path
    from controller.act.store import Store
    from tests.builders import config_map
    store = Store(Path(sys.argv[1]))
    number = 0
    while True:
        store.edit([config_map(f"c{number}", {"a": "x" * 2000})])
        print(number, flush=True)
        number += 1
"""


@pytest.mark.timeout(120)
def test_a_killed_writer_loses_nothing_that_it_acknowledged(store: Store) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(store.path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    writer.stdout.close()
    names = {one.meta.name for one in store.load().declared.values()}
    assert {f"c{number}" for number in acknowledged} <= names
    assert len(names) <= len(acknowledged) + 1
    assert store._database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_process_that_dies_inside_a_transaction_leaves_no_half_of_it(store: Store, other: Store) -> None:
    other._database.execute("BEGIN IMMEDIATE")
    other._write([deployment("web", 3)], (), ())
    other._database.close()  # what the kernel does for a killed process
    assert not store.load().deployments
    store.edit([deployment("web", 3)])
