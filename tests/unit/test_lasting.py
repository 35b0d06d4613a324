"""Volumes in declared directories, on real ones: made whole, found again, removed with all they hold and nothing else."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import pytest

from nodeagent.files import HostFiles
from nodeagent.protocol import Container, Mount, Pod, Volume
from nodeagent.runtime import Content, MissingContent
from nodeagent.spec import sub_path_key

NAME = "sshoal-c0ffee00-0000-4000-8000-000000000001-0d6c3a52-0000-4000-8000-000000000001-1"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners and mounts: run as root")


@pytest.fixture
def files(tmp_path: Path) -> HostFiles:
    return HostFiles(str(tmp_path / "state"), str(tmp_path / "run"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "fast"
    path.mkdir()
    return path


def make(files: HostFiles, disk: Path) -> Path:
    path = Path(asyncio.run(files.make_volume(str(disk), NAME)))
    asyncio.run(files.open_volume(str(path)))
    return path


def test_a_volume_is_open_to_the_users_of_pods_and_to_nobody_else_on_the_host(files: HostFiles, disk: Path) -> None:
    path = make(files, disk)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert asyncio.run(files.volumes(str(disk))) == {NAME: str(path)}
    assert make(files, disk) == path, "again is no error"


def test_a_volume_with_files_keeps_the_mode_that_they_gave_it(files: HostFiles, disk: Path) -> None:
    path = make(files, disk)
    (path / "PG_VERSION").write_text("17")
    path.chmod(0o700)
    asyncio.run(files.open_volume(str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_else_is_in_the_directory_is_neither_found_nor_removed(files: HostFiles, disk: Path) -> None:
    make(files, disk)
    (disk / "database").mkdir()
    (disk / "sshoal-link").symlink_to(disk / "database")
    assert list(asyncio.run(files.volumes(str(disk)))) == [NAME]
    asyncio.run(files.remove_volume(str(disk), NAME))
    asyncio.run(files.remove_volume(str(disk), NAME))
    assert sorted(item.name for item in disk.iterdir()) == [".sshoal", "database", "sshoal-link"]
    with pytest.raises(OSError, match="no directory of ours"):
        asyncio.run(files.remove_volume(str(disk), "sshoal-link"))
    assert (disk / "database").is_dir()


def test_removal_follows_no_link_out_of_the_volume(files: HostFiles, disk: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    (make(files, disk) / "way-out").symlink_to(precious)
    asyncio.run(files.remove_volume(str(disk), NAME))
    assert (precious / "file").read_text() == "keep"


def test_a_disk_that_may_not_be_mounted_has_removed_nothing(files: HostFiles, tmp_path: Path) -> None:
    (tmp_path / "unmounted").mkdir()
    for directory in (tmp_path / "unmounted", tmp_path / "nowhere"):
        with pytest.raises(OSError, match="is its disk mounted"):
            asyncio.run(files.remove_volume(str(directory), NAME))
        assert asyncio.run(files.volumes(str(directory))) == {}
    with pytest.raises(OSError, match="sshoal_volumes declares is not there"):
        asyncio.run(files.make_volume(str(tmp_path / "nowhere"), NAME))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ""])
def test_no_name_leads_out_of_the_directory(files: HostFiles, disk: Path, name: str) -> None:
    for attempt in (files.make_volume(str(disk), name), files.remove_volume(str(disk), name)):
        with pytest.raises(OSError, match="not usable as a file name"):
            asyncio.run(attempt)


@as_root
def test_what_is_mounted_in_a_volume_is_not_removed_with_it(files: HostFiles, disk: Path) -> None:
    place = make(files, disk) / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        with pytest.raises(OSError, match="something is mounted in it"):
            asyncio.run(files.remove_volume(str(disk), NAME))
    finally:
        subprocess.run(["umount", str(place)], check=True)


@as_root
def test_with_a_group_all_files_become_its_own_once(files: HostFiles, disk: Path, tmp_path: Path) -> None:
    path = make(files, disk)
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (path / "old").write_text("1")
    (path / "old").chmod(0o600)
    (path / "link").symlink_to(outside)
    given = Content({}, {}, volumes={NAME: str(path)})
    assert asyncio.run(files.prepare(_pod(fs_group=4321), given))["data"] == str(path)
    assert (path.stat().st_gid, (path / "old").stat().st_gid, outside.stat().st_gid) == (4321, 4321, 0)
    assert path.stat().st_mode & stat.S_ISGID
    assert stat.S_IMODE((path / "old").stat().st_mode) == 0o660
    (path / "old").chmod(0o600)
    asyncio.run(files.prepare(_pod(fs_group=4321), given))
    assert stat.S_IMODE((path / "old").stat().st_mode) == 0o600, "it is done once"


@as_root
def test_a_part_of_a_volume_is_mounted_and_lasts(files: HostFiles, disk: Path) -> None:
    path = make(files, disk)
    wanted, given = _pod(), Content({}, {}, volumes={NAME: str(path)})
    paths = asyncio.run(files.prepare(wanted, given))
    own = asyncio.run(files.prepare_container(wanted, wanted.containers[0], 0, paths))
    (Path(own[sub_path_key("data", "html")]) / "index").write_text("hello")
    asyncio.run(files.remove(wanted.uid))
    assert (path / "html" / "index").read_text() == "hello", "the pod's end takes nothing of the volume"


def test_a_pod_is_held_back_while_its_volume_is_not_there(files: HostFiles) -> None:
    for volumes in ({}, {NAME: "/nowhere/at/all"}):
        with pytest.raises(MissingContent, match="volume data: the volume of its claim is not on this node"):
            asyncio.run(files.prepare(_pod(), Content({}, {}, volumes=volumes)))


def _pod(fs_group: int | None = None) -> Pod:
    mounts = (Mount("data", "/html", sub_path="html"),)
    volumes = (Volume("data", "claim", claim=NAME),)
    return Pod(
        "uid-1", "default", "db-0", "h", (Container("db", "db:1", mounts=mounts),), volumes=volumes, fs_group=fs_group
    )
