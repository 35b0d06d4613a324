"""`backup` and `restore`: what is in the file, who may read it, what a restored store may do."""

from __future__ import annotations

import base64
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.act.lock import pass_lock
from controller.act.secrets import Sealer
from controller.act.store import Store, backup
from controller.act.store.backup import EPOCHS_SKIPPED, read_backup, restore_backup, write_backup
from controller.model.errors import AnotherController, StoreError, UsageError
from controller.model.plan import Change
from tests import builders
from tests.shell import Shell

CANARY = "canary-3141"


@pytest.fixture
def kept(full: Shell) -> Shell:
    """With a sealed secret and its key; keys.db is a backup of it."""
    sealer = Sealer.load(full.context / "secrets.key", create=True)
    values = {"password": base64.b64encode(CANARY.encode()).decode()}
    store = full.store()
    store.edit(secrets={"default/keys": sealer.seal("default/keys", values)})
    store.close()
    code, out, err = full("backup", "keys.db")
    assert (code, "6 objects" in out, "values of 1 secrets are sealed" in err) == (0, True, True)
    return full


def names(store: Path) -> set[str]:
    with closing(Store(store)) as opened:
        return {record.meta.name for record in opened.load().all()}


def test_a_backup_is_one_file_for_its_owner_alone(kept: Shell) -> None:
    found = sorted(path.name for path in kept.home.iterdir() if "keys.db" in path.name or "sshoal-backup" in path.name)
    assert found == ["keys.db"]
    assert (kept.home / "keys.db").stat().st_mode & 0o777 == 0o600


def test_without_the_option_neither_key_nor_value_is_in_it(kept: Shell) -> None:
    key = (kept.context / "secrets.key").read_bytes().strip()
    data = (kept.home / "keys.db").read_bytes()
    assert key not in data and base64.b64encode(key) not in data
    assert CANARY.encode() not in data and base64.b64encode(CANARY.encode()) not in data
    assert read_backup(kept.home / "keys.db").key is None


def test_a_file_that_is_there_is_replaced_only_when_asked(kept: Shell) -> None:
    before = (kept.home / "keys.db").read_bytes()
    code, _, err = kept("backup", "keys.db")
    assert (code, "exists already" in err) == (2, True)
    assert (kept.home / "keys.db").read_bytes() == before
    assert kept("backup", "keys.db", "--force")[0] == 0


def test_a_lost_context_is_restored_with_its_secrets(kept: Shell) -> None:
    key = (kept.context / "secrets.key").read_bytes()
    assert kept("backup", "all.db", "--with-key")[0] == 0
    for file in kept.context.iterdir():
        file.unlink()
    code, out, err = kept("restore", "all.db")
    assert (code, err) == (0, "") and "6 objects" in out
    assert ((kept.context / "secrets.key").read_bytes(), (kept.context / "secrets.key").stat().st_mode & 0o777) == (key, 0o600)  # fmt: skip
    assert (kept.context / "store.db").stat().st_mode & 0o777 == 0o600
    with closing(kept.store()) as store:
        ((digest, sealed),) = store.sealed_secrets(["default/keys"]).values()
    value = Sealer.load(kept.context / "secrets.key").unseal("default/keys", digest, sealed).data["password"]
    assert base64.b64decode(value).decode() == CANARY
    assert kept("get", "pods", "-o", "name", "--cached")[1] == "pod/lonely\n"


def test_who_has_the_store_open_meanwhile_knows_all_that_was_restored(kept: Shell) -> None:
    """A command that waits for another controller may be the next to run passes: what it did not know of would be stopped."""
    with closing(kept.store()) as store, closing(kept.store()) as waiting:
        store.edit(remove=list(store.load().deployments.values()))
        store.edit([replace(store.load().nodes["node1"], cordoned=True)])
        assert (waiting.load().deployments, waiting.load().nodes["node1"].cordoned) == ({}, True)
        assert kept("restore", "keys.db", "--yes")[0] == 0
        with closing(kept.store()) as fresh:
            assert waiting.load() == fresh.load()


def test_secrets_whose_key_is_lost_are_told(kept: Shell) -> None:
    (kept.context / "secrets.key").unlink()
    assert "secrets cannot be read until their key is back" in kept("restore", "keys.db", "--yes")[2]


def test_the_key_of_an_undone_restore_comes_back_and_none_is_ever_lost(kept: Shell) -> None:
    """By a restore with another key, then another: each time the key that was there is put aside under a name of its own."""
    mine = (kept.context / "secrets.key").read_bytes()
    for number in (1, 2):
        theirs = kept.home / f"theirs{number}"
        Sealer.load(theirs / "key", create=True)
        Store(theirs / "store.db", create=True).close()
        key = (theirs / "key").read_bytes()
        write_backup(theirs / "store.db", kept.home / f"theirs{number}.db", key=key, now_s=1.0)
        assert kept("restore", f"theirs{number}.db", "--yes")[0] == 0
    assert kept("restore", "keys.db", "--yes")[2] == ""
    assert (kept.context / "secrets.key").read_bytes() == mine
    aside = sorted(path.name for path in kept.context.glob("secrets.key.*"))
    assert aside == [f"secrets.key.before-restore{number}" for number in ("", ".2", ".3")]


def test_a_key_that_does_not_open_the_secrets_is_told(kept: Shell) -> None:
    (kept.context / "secrets.key").write_bytes(base64.b64encode(b"k" * 32))
    assert "secrets cannot be read until their key is back" in kept("restore", "keys.db", "--yes")[2]


def test_the_store_itself_is_no_place_for_its_backup(kept: Shell) -> None:
    code, _, err = kept("backup", "context/store.db", "--force")
    assert (code, "is the store itself" in err) == (2, True)
    assert "lonely" in names(kept.context / "store.db")


def test_only_a_backup_is_ever_replaced_by_one(kept: Shell) -> None:
    key = (kept.context / "secrets.key").read_bytes()
    code, _, err = kept("backup", "context/secrets.key", "--force", "--with-key")
    assert (code, "secrets.key is no backup, and only those are replaced" in err) == (2, True)
    assert (kept.context / "secrets.key").read_bytes() == key
    assert kept("backup", "keys.db", "--force")[0] == 0


def test_what_a_restore_put_aside_outlives_the_next_one(kept: Shell) -> None:
    kept("create", "namespace", "later")
    kept("restore", "keys.db", "--yes")
    _, out, _ = kept("restore", "keys.db", "--yes")
    assert f"what was there is in {kept.context / 'store.db.before-restore.2'}" in out
    assert read_backup(kept.context / "store.db.before-restore").objects == 7
    assert read_backup(kept.context / "store.db.before-restore.2").objects == 6


def test_another_key_that_is_there_is_kept(kept: Shell) -> None:
    kept("backup", "all.db", "--with-key")
    (kept.context / "secrets.key").write_bytes(b"another")
    assert kept("restore", "all.db", "--yes")[0] == 0
    assert (kept.context / "secrets.key.before-restore").read_bytes() == b"another"


def test_a_key_that_cannot_be_written_leaves_the_one_that_was_there(kept: Shell) -> None:
    kept("backup", "all.db", "--with-key")
    (kept.context / "secrets.key").write_bytes(b"another")
    (kept.context / "secrets.key.new").mkdir()
    code, _, err = kept("restore", "all.db", "--yes")
    assert (code, "secrets.key cannot be written: Is a directory" in err) == (1, True)
    assert (kept.context / "secrets.key").read_bytes() == b"another"


def test_nothing_is_replaced_unasked(kept: Shell) -> None:
    code, out, err = kept("restore", "keys.db")
    assert (code, "nobody can be asked" in err, "it replaces 6 objects" in out) == (2, True, True)
    assert not list(kept.context.glob("*.before-restore"))


def test_what_came_after_the_backup_is_gone_and_kept_beside(kept: Shell) -> None:
    kept("create", "namespace", "later")
    assert kept("restore", "keys.db", "--yes")[0] == 0
    assert "later" not in names(kept.context / "store.db")
    before = read_backup(kept.context / "store.db.before-restore")
    assert before.objects == 7


def test_a_restore_can_be_undone_by_restoring_what_it_put_aside(kept: Shell) -> None:
    kept("create", "namespace", "later")
    kept("restore", "keys.db", "--yes")
    assert kept("restore", "context/store.db.before-restore", "--yes")[0] == 0
    assert "later" in names(kept.context / "store.db")


def test_while_another_run_is_active_nothing_is_restored(kept: Shell) -> None:
    kept("create", "namespace", "later")
    with pass_lock(kept.context / "pass.lock"):
        assert kept("restore", "keys.db", "--yes")[0] == AnotherController.exit_code
    assert "later" in names(kept.context / "store.db")


def test_a_restored_store_has_an_epoch_of_its_own_and_the_serials_that_were_saved(tmp_path: Path) -> None:
    """Serials stay: an agent that has a higher one shows that the store is behind it. Epochs do not meet those taken since."""
    with closing(Store(tmp_path / "store.db", create=True)) as store:
        node = builders.node("node1")
        store.edit([node])
        store.commit((), new_serials=["node1"])
        write_backup(tmp_path / "store.db", tmp_path / "b.db", key=None, now_s=1.0)
        saved, serial, cluster = store.epoch(), store.load().serial, store.cluster_id
        present = store.load().nodes["node1"]
        store.commit([Change("update", replace(present, cordoned=True), "", "")], new_serials=["node1"])
    for _ in range(5):
        with closing(Store(tmp_path / "store.db")) as later:
            last = later.take_epoch()
    restore_backup(tmp_path / "b.db", tmp_path / "store.db", tmp_path / "key", now_s=2.0)
    with closing(Store(tmp_path / "store.db")) as restored:
        assert (restored.cluster_id, restored.load().serial) == (cluster, serial)
        assert restored.epoch().number == last.number + EPOCHS_SKIPPED
        assert restored.epoch().id not in (saved.id, last.id)
        assert restored.take_epoch().number > last.number + EPOCHS_SKIPPED
        assert not restored.load().nodes["node1"].cordoned


def test_the_same_backup_restored_again_is_ahead_of_what_hosts_know(tmp_path: Path) -> None:
    """They heard of the epochs of the first restored store."""
    with closing(Store(tmp_path / "store.db", create=True)):
        write_backup(tmp_path / "store.db", tmp_path / "b.db", key=None, now_s=1.0)
    last = 0
    for _ in range(3):
        restore_backup(tmp_path / "b.db", tmp_path / "store.db", tmp_path / "key", now_s=2.0)
        with closing(Store(tmp_path / "store.db")) as restored:
            assert restored.epoch().number > last
            last = restored.take_epoch().number


def test_a_backup_restored_for_a_store_that_is_lost_or_damaged_is_ahead_of_what_hosts_know(tmp_path: Path) -> None:
    """Nothing tells the last epoch then, and a readable store's restore in between has skipped many."""
    file = tmp_path / "store.db"
    with closing(Store(file, create=True)):
        write_backup(file, tmp_path / "b.db", key=None, now_s=1.0)
    last = 0
    for minute, present in enumerate(("kept", "lost", "kept", "kept", "damaged", "kept", "lost", "damaged")):
        if present == "lost":
            file.unlink()
        if present == "damaged":
            file.write_bytes(b"not a database" * 1000)
        restore_backup(tmp_path / "b.db", file, tmp_path / "key", now_s=builders.START_S + 60 * minute)
        with closing(Store(file)) as restored:
            assert restored.epoch().number > last, (minute, present)
            last = restored.take_epoch().number


def test_a_controller_of_the_former_store_notices(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "store.db", create=True)) as former:
        former.take_epoch()
        write_backup(tmp_path / "store.db", tmp_path / "b.db", key=None, now_s=1.0)
        restore_backup(tmp_path / "b.db", tmp_path / "store.db", tmp_path / "key", now_s=2.0)
        with pytest.raises(AnotherController, match="took over"):
            former.commit(())


def test_a_damaged_store_is_put_aside_and_replaced(kept: Shell) -> None:
    (kept.context / "store.db").write_bytes(b"not a database" * 1000)
    code, out, err = kept("restore", "keys.db", "--yes")
    assert code == 0 and "cannot be read" in out, err
    assert (kept.context / "store.db.before-restore").read_bytes().startswith(b"not a database")
    assert "lonely" in names(kept.context / "store.db")


def test_what_is_no_backup_changes_nothing(kept: Shell) -> None:
    (kept.home / "text").write_text("hello" * 1000)
    (kept.home / "empty").write_text("")
    torn = (kept.home / "keys.db").read_bytes()
    (kept.home / "torn").write_bytes(torn[: len(torn) // 2])
    with closing(sqlite3.connect(kept.home / "newer")) as newer, closing(sqlite3.connect(kept.home / "keys.db")) as old:
        old.backup(newer)
        newer.execute("PRAGMA user_version = 99")
    before = names(kept.context / "store.db")
    for name, code in (("text", 2), ("empty", 2), ("torn", 1), ("newer", 1), ("nothere", 2)):
        assert kept("restore", name, "--yes")[0] == code, name
    assert "text is no backup of sshoal's" in kept("restore", "text", "--yes")[2]
    assert names(kept.context / "store.db") == before
    assert not list(kept.context.glob("*.before-restore"))


def test_a_backup_is_made_while_others_write(tmp_path: Path) -> None:
    """A transaction that is open is not in it, and does not hold it up."""
    with closing(Store(tmp_path / "store.db", create=True)) as store:
        store.edit([builders.bare_pod("one")])
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM records")
            found = write_backup(tmp_path / "store.db", tmp_path / "b.db", key=None, now_s=1.0)
            writer.execute("ROLLBACK")
    assert found.objects == 1


def test_errors_name_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        write_backup(tmp_path / "store.db", tmp_path / "no" / "b.db", key=None, now_s=1.0)
    with pytest.raises(StoreError):
        write_backup(tmp_path / "store.db", tmp_path / "b.db", key=None, now_s=1.0)


def test_names_of_files_need_not_be_utf_8(kept: Shell) -> None:
    """In the name of a backup, of its directory, and in the record of operations."""
    name = os.fsdecode(b"Sicherung-\xfc")
    (kept.home / name).mkdir()
    assert kept("backup", f"{name}/{name}.db")[0] == 0
    code, out, _ = kept("restore", "--yes", f"{name}/{name}.db")
    assert (code, "Sicherung-\\udcfc" in out) == (0, True)
    assert "Sicherung-?/Sicherung-?.db" in kept("operations", "-o", "wide")[1]


@pytest.fixture
def no_space(kept: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a copy of the store, nor for one in its place."""
    store, copied = kept.context / "store.db", backup._copy

    def full(source: Path, target: Path) -> None:
        if store in (source, target):
            raise sqlite3.OperationalError("database or disk is full")
        copied(source, target)

    monkeypatch.setattr(backup, "_copy", full)


@pytest.mark.usefixtures("no_space")
def test_a_restore_that_fails_leaves_also_a_store_that_could_not_be_saved_where_it_was(kept: Shell) -> None:
    """With no space for a copy, what is there is moved aside. Left there, the next command would begin a new cluster."""
    store = kept.context / "store.db"
    before = names(store)
    code, _, err = kept("restore", "keys.db", "--yes")
    assert (code, "no space left" in err) == (1, True)
    assert names(store) == before
    assert not list(kept.context.glob("store.db.*"))


@pytest.mark.usefixtures("no_space")
def test_a_restore_that_fails_where_no_store_was_leaves_none(kept: Shell) -> None:
    """An empty one would be a new cluster to the next command."""
    for file in kept.context.glob("store.db*"):
        file.unlink()
    assert kept("restore", "keys.db", "--yes")[0] == 1
    assert not list(kept.context.glob("store.db*"))
