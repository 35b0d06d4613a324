"""The store's file and many processes: damage, death in the middle of its making, writers at the same time, long use."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from controller.act.store import Bounds, Event, Store
from controller.model.errors import StoreError
from tests.builders import config_map, deployment, node, secret

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def filled(path: Path) -> bytes:
    """The file of a store with something of every kind in it, its log written back."""
    with closing(Store(path, create=True)) as store:
        store.edit(
            [deployment("web", 3), node("n1"), secret("login", "h1")], secrets={"default/login": ("h1", b"sealed" * 99)}
        )
        store.edit([config_map(f"c{number}", {"a": "x" * 700}) for number in range(60)])
        store.edit(events=[Event(float(number), "R", "m" * 50, "Pod", "default", f"p{number}") for number in range(99)])
        store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def use(path: Path) -> None:
    """What a pass does with it: look at all, take an epoch, write."""
    with closing(Store(path)) as store:
        store.load()
        store.commit(())
        store.edit([config_map("another", {"a": "1"})])


# ---- damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut in the middle", "a page is missing", "a page of zeros", "a page of another file"])
def test_a_torn_store_is_refused_and_kept_as_it_is(path: Path, how: str) -> None:
    good = filled(path)
    middle = good.index(b'"name":"c30"') // PAGE * PAGE  # a page of records
    torn = {
        "cut in the middle": good[: middle + 100],
        "a page is missing": good[:middle] + good[middle + PAGE :],
        "a page of zeros": good[:middle] + bytes(PAGE) + good[middle + PAGE :],
        "a page of another file": good[:middle] + random.Random(1).randbytes(PAGE) + good[middle + PAGE :],
    }[how]
    path.write_bytes(torn)
    with pytest.raises(StoreError, match="damaged") as caught:
        use(path)
    assert "sshoal restore" in caught.value.hint
    assert path.read_bytes()[PAGE:] == torn[PAGE:], "but for SQLite's counter of opens in the header"


def test_no_damage_of_the_file_is_an_unforeseen_error(path: Path) -> None:
    """Read, or refused in words: never a traceback. (A changed letter within a value is a value: SQLite has no checksums.)"""
    good, dice = filled(path), random.Random(7)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(dice.choice([1, 1, 3, 40])):
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad[: dice.choice([len(bad), len(bad), dice.randrange(len(bad))])])
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        try:
            use(path)
        except StoreError as error:
            assert str(path) in str(error) or "store" in str(error)


# ---- death in the middle ------------------------------------------------------------------------------------------------

MAKER = """
    import os, signal, sqlite3, sys
    from pathlib import Path
    from controller.act.store import Store, sqlite
    connect, left = sqlite._connect, [int(sys.argv[2])]

    def count(statement):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(path):
        database = connect(path)
        database.set_trace_callback(count)
        return database

    sqlite._connect = traced
    Store(Path(sys.argv[1]), create=True).close()
    print("made")
"""


def test_a_store_killed_at_any_statement_of_its_making_can_be_made_again(tmp_path: Path) -> None:
    for at in range(1, 100):
        path = tmp_path / f"{at}.db"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MAKER), str(path), str(at)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        with closing(sqlite3.connect(path)) as database:
            made = database.execute("PRAGMA user_version").fetchone()[0]
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        assert bool(made) == bool(tables), "all of it or nothing"
        with closing(Store(path, create=True)) as store:
            store.edit([config_map("c", {"a": "1"})])
            assert len(store.load().declared) == 1
        if done.stdout:
            assert at > 10
            return
    pytest.fail("its making never ends")


# ---- many at once, and for long -------------------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from controller.act.store import Store
    from tests.builders import config_map
    store = Store(Path(sys.argv[1]))
    for number in range(50):
        store.edit([config_map(f"c{sys.argv[2]}-{number}", {"a": "x"})])
"""


@pytest.mark.timeout(120)
def test_four_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    Store(path, create=True).close()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    with closing(Store(path)) as store:
        assert len(store.load().declared) == 200
        assert store.load().counter == 200


def test_a_store_that_is_used_for_long_stays_small(path: Path) -> None:
    with closing(Store(path, create=True, bounds=Bounds(events=200))) as store:
        sizes = []
        for day in range(12):
            store.edit(
                events=[
                    Event(day * 86400.0 + number, "R", f"{day}-{number}" + "m" * 100, "Pod", "default", "p")
                    for number in range(400)
                ]
            )
            store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(path.stat().st_size)
        assert len(store.events(limit=10_000)) == 200
        assert sizes[-1] == sizes[2], sizes
