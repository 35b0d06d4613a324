"""HostFiles on real directories: what pods mount, who may read it, what is on a disk, and that removal takes nothing else with it."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nodeagent import netfiles, subpaths
from nodeagent.files import HostFiles, host_path
from nodeagent.protocol import Config, Container, Dns, HostAlias, Item, Mount, Pod, SecretValue, Source, Volume
from nodeagent.runtime import Content, MissingContent
from nodeagent.spec import TERMINATION_KEY, sub_path_key

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts tmpfs and changes owners: run as root")
UID = "3f2a-1"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def pod(*volumes: Volume, **fields: Any) -> Pod:
    return Pod(
        **{
            "uid": UID,
            "namespace": "shop",
            "name": "web-1",
            "hash": "h",
            "containers": (),
            "volumes": volumes,
            **fields,
        }
    )


def content(configs: Any = None, secrets: Any = None, wanted: Any = None, host_paths: tuple[str, ...] = ()) -> Content:
    held = {
        name: SecretValue("1", {key: b64(value) for key, value in data.items()})
        for name, data in (secrets or {}).items()
    }
    return Content(
        configs={name: Config("1", data) for name, data in (configs or {}).items()},
        secrets=held,
        wanted_secrets=dict.fromkeys(held, "1") if wanted is None else wanted,
        host_paths=host_paths,
    )


def files_volume(*sources: Source, name: str = "conf", mode: int = 0o644) -> Volume:
    return Volume(name, "files", sources=sources, mode=mode)


CONFIG = Source("config", "shop/app")
SECRET = Source("secret", "shop/key")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """On tmpfs, as /run is."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def files(state_dir: Path, run_dir: Path) -> HostFiles:
    return HostFiles(str(state_dir), str(run_dir / "sshoal"))


def prepare(files: HostFiles, wanted: Pod, given: Content | None = None) -> dict[str, str]:
    return asyncio.run(files.prepare(wanted, given or content()))


@pytest.mark.parametrize("slow", ["directories of a dead file server", "removals"])
def test_what_takes_for_ever_keeps_no_other_pod(files: HostFiles, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    answers = threading.Event()
    monkeypatch.setattr("nodeagent.files.host_path", lambda volume, allowed: str(answers.wait(30)))
    monkeypatch.setattr("nodeagent.files._remove_tree", lambda path: answers.wait(30))
    outside = pod(Volume("data", "host", path="/mnt/nfs/data"))

    async def scenario() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        for number in range(8):
            await files.prepare(pod(uid=f"gone-{number}"), content())
        if slow == "removals":
            hanging = [asyncio.ensure_future(files.remove(f"gone-{number}")) for number in range(8)]
        else:
            hanging = [asyncio.ensure_future(files.prepare(outside, content())) for _ in range(8)]
        await asyncio.sleep(0.1)
        try:
            await asyncio.wait_for(files.prepare(pod(Volume("work", "empty")), content()), 5)
        finally:
            answers.set()
            await asyncio.gather(*hanging)

    asyncio.run(scenario())


def mode(path: str) -> int:
    return stat.S_IMODE(Path(path).lstat().st_mode)


def shown(path: str) -> dict[str, str]:
    """What a program in the pod finds: visible names only."""
    found = {}
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for name in names:
            if not name.startswith(".."):
                file = Path(folder) / name
                found[str(file.relative_to(path))] = file.read_text()
    return found


# ---- emptyDir ------------------------------------------------------------------------------------------------------------


def test_an_empty_directory_is_open_to_every_user_of_the_pod_and_to_nobody_else(
    files: HostFiles, state_dir: Path
) -> None:
    path = prepare(files, pod(Volume("tmp", "empty")))["tmp"]
    assert path == str(state_dir / "pods" / UID / "volumes" / "tmp")
    assert mode(path) == 0o777
    assert mode(str(state_dir / "pods")) == mode(str(state_dir / "pods" / UID)) == 0o700


def test_what_a_pod_wrote_is_still_there_when_it_is_prepared_again(files: HostFiles) -> None:
    volume = Volume("tmp", "empty")
    (Path(prepare(files, pod(volume))["tmp"]) / "kept").write_text("x")
    assert (Path(prepare(files, pod(volume))["tmp"]) / "kept").read_text() == "x"


@as_root
def test_with_a_group_an_empty_directory_belongs_to_it_and_passes_it_on(files: HostFiles) -> None:
    path = prepare(files, pod(Volume("tmp", "empty"), fs_group=4242))["tmp"]
    assert Path(path).stat().st_gid == 4242
    assert mode(path) == 0o2777


@as_root
def test_a_memory_volume_is_a_tmpfs_of_its_size_and_unmounted_with_its_pod(files: HostFiles, run_dir: Path) -> None:
    wanted = pod(Volume("cache", "memory", size_bytes=1 << 20))
    path = prepare(files, wanted)["cache"]
    try:
        assert prepare(files, wanted)["cache"] == path
        assert Path("/proc/self/mountinfo").read_text().count(f" {path} ") == 1
        disk = os.statvfs(path)
        assert disk.f_blocks * disk.f_frsize == 1 << 20
        assert mode(path) == 0o777
    finally:
        asyncio.run(files.remove(UID))
    assert path not in Path("/proc/self/mountinfo").read_text()
    assert list((run_dir / "sshoal" / "pods").iterdir()) == []


# ---- config maps, secrets, pod fields ---------------------------------------------------------------------------------------


def test_a_config_map_is_shown_as_one_file_for_each_key(files: HostFiles) -> None:
    path = prepare(files, pod(files_volume(CONFIG)), content({"shop/app": {"a.ini": "x=1", "b": "ü"}}))["conf"]
    assert shown(path) == {"a.ini": "x=1", "b": "ü"}
    assert (Path(path) / "a.ini").readlink() == Path("..data/a.ini")


def test_items_choose_keys_paths_and_modes(files: HostFiles) -> None:
    source = Source("config", "shop/app", items=(Item("a", "deep/er/a.ini"), Item("b", "b", mode=0o600)))
    path = prepare(files, pod(files_volume(source)), content({"shop/app": {"a": "1", "b": "2", "c": "3"}}))["conf"]
    assert shown(path) == {"deep/er/a.ini": "1", "b": "2"}
    assert stat.S_IMODE((Path(path) / "b").stat().st_mode) == 0o600
    assert stat.S_IMODE((Path(path) / "deep/er/a.ini").stat().st_mode) == 0o644


@as_root
def test_with_a_group_its_members_can_read_whatever_the_mode_says(files: HostFiles) -> None:
    volume = files_volume(CONFIG, mode=0o400)
    path = prepare(files, pod(volume, fs_group=4242), content({"shop/app": {"a": "1"}}))["conf"]
    status = (Path(path) / "a").stat()
    assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (4242, 0o440)
    folder = (Path(path) / "..data").stat()
    assert (folder.st_gid, stat.S_IMODE(folder.st_mode)) == (4242, 0o2755)


def test_a_secret_is_never_on_the_disk_and_its_directory_is_closed(
    files: HostFiles, state_dir: Path, run_dir: Path
) -> None:
    path = prepare(files, pod(files_volume(SECRET, mode=0o400)), content(secrets={"shop/key": {"pw": "canary-77"}}))[
        "conf"
    ]
    assert path.startswith(str(run_dir))
    assert shown(path) == {"pw": "canary-77"}
    assert mode(str(run_dir / "sshoal" / "pods")) == mode(str(run_dir / "sshoal" / "pods" / UID)) == 0o700
    assert subprocess.run(["grep", "-r", "canary-77", str(state_dir)], check=False).returncode == 1


def test_a_volume_of_both_kinds_is_kept_in_memory_as_a_whole(files: HostFiles, run_dir: Path) -> None:
    given = content({"shop/app": {"a": "1"}}, {"shop/key": {"pw": "2"}})
    path = prepare(files, pod(files_volume(CONFIG, SECRET)), given)["conf"]
    assert path.startswith(str(run_dir))
    assert shown(path) == {"a": "1", "pw": "2"}


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory on a disk, which /tmp is not everywhere (Debian 13)."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


@as_root
def test_where_the_run_directory_is_on_a_disk_a_tmpfs_is_mounted_for_secrets(on_disk: Path) -> None:
    files = HostFiles(str(on_disk / "state"), str(on_disk / "run"))
    try:
        path = prepare(files, pod(files_volume(SECRET)), content(secrets={"shop/key": {"pw": "x"}}))["conf"]
        kind = subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True).stdout
        assert kind.strip() == "tmpfs"
        asyncio.run(files.remove(UID))
        assert asyncio.run(files.uids()) == ()
    finally:
        subprocess.run(["umount", str(on_disk / "run" / "pods")], check=True)


@pytest.mark.parametrize(
    ("source", "given", "words"),
    [
        (CONFIG, content(), "config map shop/app does not exist"),
        (SECRET, content(), "secret shop/key does not exist"),
        (SECRET, content(wanted={"shop/key": "1"}), "has not arrived"),
        (SECRET, content(secrets={"shop/key": {"a": "old"}}, wanted={"shop/key": "2"}), "has not arrived"),
        (Source("secret", "shop/key", optional=True), content(wanted={"shop/key": "1"}), "has not arrived"),
        (Source("config", "shop/app", items=(Item("no", "p"),)), content({"shop/app": {"a": "1"}}), "no key 'no'"),
        (Source("downward", items=(Item(path="p", field="spec.nodeName"),)), content(), "can't be had"),
        (Source("downward", items=(Item(path="p", resource="limits.cpu", container="x"),)), content(), "no container"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_made(
    files: HostFiles, state_dir: Path, source: Source, given: Content, words: str
) -> None:
    with pytest.raises(MissingContent, match=re.escape(words)):
        prepare(files, pod(Volume("tmp", "empty"), files_volume(source)), given)
    assert not state_dir.exists()


@pytest.mark.parametrize(
    "source", [Source("config", "shop/app", optional=True), Source("secret", "shop/key", optional=True)]
)
def test_what_is_optional_and_missing_makes_an_empty_volume(files: HostFiles, source: Source) -> None:
    assert shown(prepare(files, pod(files_volume(source)))["conf"]) == {}


def test_an_optional_key_that_is_missing_is_left_out(files: HostFiles) -> None:
    source = Source("config", "shop/app", items=(Item("a", "a"), Item("no", "no")), optional=True)
    assert shown(prepare(files, pod(files_volume(source)), content({"shop/app": {"a": "1"}}))["conf"]) == {"a": "1"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..data", "..x", "a//b", "", "./a"])
def test_no_item_path_leads_out_of_the_volume(files: HostFiles, path: str) -> None:
    source = Source("config", "shop/app", items=(Item("a", path),))
    with pytest.raises(OSError) as error:
        prepare(files, pod(files_volume(source)), content({"shop/app": {"a": "1"}}))
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "."])
def test_no_volume_name_or_uid_leads_out_of_the_pods_directory(files: HostFiles, name: str) -> None:
    for wanted in (pod(Volume(name, "empty")), pod(uid=name)):
        with pytest.raises(OSError) as error:
            prepare(files, wanted)
        assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError):
        asyncio.run(files.remove(name))


def test_a_secret_that_cannot_be_decoded_is_an_error_without_its_value(files: HostFiles) -> None:
    broken = Content({}, {"shop/key": SecretValue("1", {"pw": "canary!"})}, {"shop/key": "1"})
    with pytest.raises(OSError) as error:
        prepare(files, pod(files_volume(SECRET)), broken)
    assert "shop/key" in str(error.value) and "canary" not in str(error.value)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Item(field="metadata.name"), "web-1"),
        (Item(field="metadata.namespace"), "shop"),
        (Item(field="metadata.uid"), UID),
        (Item(field="metadata.labels"), 'app="web"\nnote="say \\"hi\\"\\n"'),
        (Item(field="metadata.labels['app']"), "web"),
        (Item(field="metadata.annotations['none']"), ""),
        (Item(resource="limits.memory", container="c", divisor="1Mi"), "65"),
        (Item(resource="limits.memory", container="c"), str(64 * 2**20 + 1)),
        (Item(resource="limits.cpu", container="c"), "2"),
        (Item(resource="limits.cpu", container="c", divisor="1m"), "1500"),
        (Item(resource="requests.cpu", container="c"), "0"),
    ],
)
def test_pod_fields_read_as_in_kubernetes(files: HostFiles, item: Item, text: str) -> None:
    """Quantities are rounded up to whole divisors; labels are one quoted line each, in order."""
    container = Container("c", "i", cpu_limit_m=1500, memory_limit_bytes=64 * 2**20 + 1)
    wanted = pod(
        files_volume(Source("downward", items=(Item(**{**vars(item), "path": "p"}),))),
        containers=(container,),
        labels={"note": 'say "hi"\n', "app": "web"},
    )
    assert shown(prepare(files, wanted)["conf"]) == {"p": text}


# ---- updates ---------------------------------------------------------------------------------------------------------------


def refresh(files: HostFiles, wanted: Pod, given: Content) -> None:
    asyncio.run(files.refresh(wanted, given))


def test_an_update_swaps_all_files_at_once_and_leaves_nothing_of_the_old(files: HostFiles) -> None:
    wanted = pod(files_volume(CONFIG))
    path = Path(prepare(files, wanted, content({"shop/app": {"a": "1", "gone": "1"}}))["conf"])
    before = (path / "..data").readlink()
    inside = os.open(path, os.O_RDONLY)  # as a container that has the directory mounted
    refresh(files, wanted, content({"shop/app": {"a": "2", "new": "2"}}))
    assert shown(f"/proc/self/fd/{inside}") == {"a": "2", "new": "2"}
    os.close(inside)
    assert (path / "..data").readlink() != before
    assert sorted(entry.name for entry in path.iterdir() if entry.name.startswith("..")) == sorted(
        ["..data", (path / "..data").readlink().name]
    )


def test_an_update_without_a_change_writes_nothing(files: HostFiles) -> None:
    wanted, given = pod(files_volume(CONFIG)), content({"shop/app": {"a": "1"}})
    path = Path(prepare(files, wanted, given)["conf"])
    before = (path / "..data").readlink(), path.stat().st_mtime_ns
    refresh(files, wanted, given)
    assert ((path / "..data").readlink(), path.stat().st_mtime_ns) == before


def test_files_that_a_crash_cut_short_are_written_again(files: HostFiles) -> None:
    wanted, given = pod(files_volume(CONFIG)), content({"shop/app": {"a": "12345"}})
    path = Path(prepare(files, wanted, given)["conf"])
    (path / "..data" / "a").write_text("")
    (path / "..data_tmp").symlink_to("nowhere")
    (path / "..leftover").mkdir()
    assert shown(prepare(files, wanted, given)["conf"]) == {"a": "12345"}
    assert not (path / "..leftover").exists()


def test_an_update_that_fails_leaves_the_old_files(files: HostFiles) -> None:
    wanted = pod(files_volume(CONFIG))
    path = prepare(files, wanted, content({"shop/app": {"a": "1"}}))["conf"]
    with pytest.raises(OSError):
        refresh(files, wanted, content({"shop/app": {"a": "2", "x" * 300: "no file name is that long"}}))
    assert shown(path) == {"a": "1"}


def test_a_reader_sees_either_state_never_a_mixture(files: HostFiles) -> None:
    wanted = pod(files_volume(CONFIG))
    path = Path(prepare(files, wanted, content({"shop/app": {"a": "0", "b": "0"}}))["conf"])

    async def race() -> None:
        done = asyncio.Event()

        async def write() -> None:
            for number in range(1, 60):
                await files.refresh(wanted, content({"shop/app": {"a": str(number), "b": str(number)}}))
            done.set()

        def read() -> None:
            try:
                folder = os.open(path / "..data", os.O_RDONLY | os.O_DIRECTORY)  # what a careful program holds on to
            except FileNotFoundError:
                return
            try:
                values = set()
                for name in ("a", "b"):
                    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder)) as file:
                        values.add(file.read())
                assert len(values) == 1
            except FileNotFoundError:
                pass  # the directory was replaced and removed meanwhile: the program looks again
            finally:
                os.close(folder)

        writing = asyncio.ensure_future(write())
        while not done.is_set():
            await asyncio.to_thread(read)
        await writing

    asyncio.run(race())


# ---- resolv.conf and hosts -----------------------------------------------------------------------------------------------


def test_the_hosts_file_learns_the_address_in_place(files: HostFiles) -> None:
    """The same inode: a running container has this very file mounted."""
    wanted = pod(subdomain="db", host_aliases=(HostAlias("10.0.0.9", ("old", "old.example")),))
    path = Path(prepare(files, wanted)["/etc/hosts"])
    inode = path.stat().st_ino
    assert "localhost" in path.read_text() and "web-1" not in path.read_text()
    asyncio.run(files.set_address(wanted, "10.86.3.7"))
    lines = path.read_text().splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.86.3.7\tweb-1.db.shop.svc.cluster.local\tweb-1" in lines
    assert lines[-1] == "10.0.0.9\told\told.example"
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    asyncio.run(files.set_address(wanted, "10.86.3.8"))
    assert "10.86.3.7" not in path.read_text()


def test_preparing_a_running_pod_again_keeps_its_address(files: HostFiles) -> None:
    wanted = pod(hostname="web")
    prepare(files, wanted)
    asyncio.run(files.set_address(wanted, "10.86.3.7"))
    assert "10.86.3.7\tweb\n" in Path(prepare(files, wanted)["/etc/hosts"]).read_text()


def test_a_pod_on_the_hosts_network_has_the_hosts_own_file(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.1 box\n")
    assert netfiles.hosts(pod(host_network=True), "192.0.2.1", etc=str(tmp_path)) == "192.0.2.1 box\n"


def test_a_long_pod_name_is_cut_to_a_host_name() -> None:
    assert netfiles.hostname(pod(name="a" * 62 + "-b")) == "a" * 62


@pytest.mark.parametrize(
    ("host", "resolved", "dns", "on_host", "expected"),
    [
        pytest.param(
            "nameserver 9.9.9.9\nsearch a b\noptions ndots:1 rotate\n", "", Dns(), False,
            "search a b\nnameserver 9.9.9.9\noptions ndots:1 rotate\n", id="the host's",
        ),
        pytest.param(
            "nameserver 127.0.0.53\nsearch stub\n", "nameserver 10.0.0.2\nsearch lan\n", Dns(), False,
            "search lan\nnameserver 10.0.0.2\n", id="behind a local resolver",
        ),
        pytest.param(
            "nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n", Dns(), True,
            "nameserver 127.0.0.53\n", id="on the host's network",
        ),
        pytest.param(
            "nameserver 127.0.0.1\nnameserver 9.9.9.9\n", "", Dns(), False,
            "nameserver 9.9.9.9\n", id="loopback servers dropped",
        ),
        pytest.param(
            "nameserver 9.9.9.9\nsearch a\n", "", Dns(("10.1.1.1",), ("svc",), ("ndots:5",)), False,
            "search svc\nnameserver 10.1.1.1\noptions ndots:5\n", id="given",
        ),
        pytest.param(
            "nameserver 9.9.9.9\nsearch a\noptions ndots:1\n", "", Dns((), ("svc", "a"), ("ndots:5",)), False,
            "search a svc\nnameserver 9.9.9.9\noptions ndots:5\n", id="added",
        ),
        pytest.param("; nothing\nnameserver\n", "", Dns(), False, "", id="empty"),
    ],
)  # fmt: skip
def test_resolv_conf(tmp_path: Path, host: str, resolved: str, dns: Dns, on_host: bool, expected: str) -> None:
    (tmp_path / "resolv.conf").write_text(host)
    (tmp_path / "resolved").write_text(resolved)
    text = netfiles.resolv_conf(
        pod(dns=dns, host_network=on_host), etc=str(tmp_path), resolved=str(tmp_path / "resolved")
    )
    assert text == expected


# ---- hostPath ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "dir").mkdir(parents=True)
    (folder / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    (folder / "out").symlink_to("/etc")
    (folder / "loop").symlink_to("dir")
    return folder


@pytest.mark.parametrize(
    ("path", "kind", "works"),
    [
        ("dir", "Directory", True),
        ("file", "Directory", False),
        ("none", "Directory", False),
        ("none/deep", "DirectoryOrCreate", True),
        ("none", "", True),
        ("file", "", True),
        ("file", "DirectoryOrCreate", False),
        ("file", "File", True),
        ("dir", "File", False),
        ("new", "FileOrCreate", True),
        ("none/new", "FileOrCreate", False),
        ("socket", "Socket", True),
        ("file", "Socket", False),
        ("file", "CharDevice", False),
        ("file", "BlockDevice", False),
        ("dir", "Folder", False),
        ("loop", "Directory", True),
        ("out", "Directory", False),
        ("out/passwd", "File", False),
        ("dir/../../x", "", False),
        ("../datax", "DirectoryOrCreate", False),
    ],
)
def test_a_host_path_is_checked_by_type_and_stays_within_what_the_node_allows(
    allowed: Path, path: str, kind: str, works: bool
) -> None:
    volume = Volume("data", "host", path=f"{allowed}/{path}", path_type=kind)
    if works:
        assert Path(host_path(volume, (str(allowed),))).exists()
    else:
        with pytest.raises(OSError):
            host_path(volume, (str(allowed),))


@pytest.mark.parametrize(
    ("kind", "modes"), [("DirectoryOrCreate", [0o755, 0o755]), ("", [0o755, 0o755]), ("FileOrCreate", [0o644])]
)
def test_what_is_made_for_a_host_path_is_open_to_pods_of_other_users_whatever_the_umask(
    allowed: Path, kind: str, modes: list[int]
) -> None:
    path = allowed / "made" if len(modes) == 1 else allowed / "above" / "made"
    before = os.umask(0o077)
    try:
        host_path(Volume("data", "host", path=str(path), path_type=kind), (str(allowed),))
    finally:
        os.umask(before)
    made = [one for one in (path.parent, path) if one != allowed]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == modes


def test_a_character_device_can_be_mounted_where_it_is_allowed() -> None:
    assert host_path(Volume("null", "host", path="/dev/null", path_type="CharDevice"), ("/dev/null",)) == "/dev/null"


@pytest.mark.parametrize("prefixes", [(), ("/srv/datax",), ("/srv/dat",), ("relative",)])
def test_without_a_prefix_that_holds_it_a_host_path_is_refused(prefixes: tuple[str, ...]) -> None:
    with pytest.raises(OSError) as error:
        host_path(Volume("data", "host", path="/srv/data", path_type="DirectoryOrCreate"), prefixes)
    assert error.value.errno == errno.EACCES
    assert not Path("/srv/data").exists()


def test_the_node_can_allow_everything(allowed: Path) -> None:
    assert host_path(Volume("d", "host", path=str(allowed / "dir")), ("/",)) == str(allowed / "dir")


# ---- parts of volumes, termination messages -------------------------------------------------------------------------------------


@pytest.fixture
def parts(files: HostFiles) -> Iterator[HostFiles]:
    yield files
    asyncio.run(files.remove(UID))


def prepare_part(files: HostFiles, wanted: Pod, sub_path: str, given: Content | None = None) -> Path:
    """The place of the part `sub_path` of the pod's first volume."""
    volume = wanted.volumes[0].name
    container = Container("app", "i", mounts=(Mount(volume, "/m", sub_path=sub_path),))
    paths = prepare(files, wanted, given)
    own = asyncio.run(files.prepare_container(wanted, container, 0, paths))
    return Path(own[sub_path_key(volume, sub_path)])


EMPTY = Volume("data", "empty")


@as_root
def test_a_part_that_is_missing_is_made_with_the_volumes_mode_and_is_the_same_directory(parts: HostFiles) -> None:
    place = prepare_part(parts, pod(EMPTY), "a/b")
    volume = Path(prepare(parts, pod(EMPTY))["data"])
    (place / "file").write_text("x")
    assert (volume / "a/b/file").read_text() == "x"
    assert mode(str(volume / "a")) == mode(str(volume / "a/b")) == mode(str(volume)) == 0o777


@as_root
def test_a_part_may_be_one_file_and_is_looked_up_anew_for_each_attempt(parts: HostFiles) -> None:
    volume = Path(prepare(parts, pod(EMPTY))["data"])
    (volume / "file").write_text("first")
    assert prepare_part(parts, pod(EMPTY), "file").read_text() == "first"
    (volume / "file").unlink()
    (volume / "file").mkdir()
    assert prepare_part(parts, pod(EMPTY), "file").is_dir()


@as_root
def test_one_key_of_a_config_map_can_be_mounted_and_a_missing_one_is_refused(parts: HostFiles) -> None:
    wanted, given = pod(files_volume(CONFIG)), content({"shop/app": {"conf": "v=1"}})
    assert prepare_part(parts, wanted, "conf", given).read_text() == "v=1"
    with pytest.raises(OSError, match="volume conf: subPath 'none' is not in its volume"):
        prepare_part(parts, wanted, "none", given)
    assert prepare(parts, wanted, given)


@as_root
@pytest.mark.parametrize("target", ["/etc", "../../../..", "/proc/self/root", "../etc"])
@pytest.mark.parametrize("sub_path", ["link", "link/deeper", "dir/link"])
def test_no_symlink_in_a_volume_leads_a_part_out_of_it(parts: HostFiles, target: str, sub_path: str) -> None:
    volume = Path(prepare(parts, pod(EMPTY))["data"])
    (volume / "dir").mkdir()
    for place in (volume / "link", volume / "dir/link"):
        place.symlink_to(f"../{target}" if place.parent != volume and not target.startswith("/") else target)
    with pytest.raises(OSError) as error:
        prepare_part(parts, pod(EMPTY), sub_path)
    assert error.value.errno == errno.EACCES
    assert str(volume) not in str(error.value)


@as_root
def test_a_symlink_that_stays_in_its_volume_is_followed(parts: HostFiles) -> None:
    volume = Path(prepare(parts, pod(EMPTY))["data"])
    (volume / "real").mkdir()
    (volume / "link").symlink_to("real")
    (prepare_part(parts, pod(EMPTY), "link/in") / "file").write_text("x")
    assert (volume / "real/in/file").exists()


@as_root
def test_a_directory_swapped_for_a_symlink_at_any_moment_never_shows_the_outside(
    parts: HostFiles, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "in/canary").write_text("")
    volume = Path(prepare(parts, pod(EMPTY))["data"])
    (volume / "dir/in").mkdir(parents=True)
    (volume / "trap").symlink_to(outside)
    swapping = subprocess.Popen(
        [sys.executable, "-c", SWAP, str(volume / "dir"), str(volume / "trap")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert swapping.stdout is not None
    assert swapping.stdout.readline() == b"up\n"
    try:
        bound = refused = 0
        for number in range(300):
            target = tmp_path / f"target-{number}"
            try:
                subpaths.bind(volume, "dir/in", target, may_make=True)
            except OSError:
                refused += 1
                continue
            bound += 1
            found = list(target.iterdir())
            subprocess.run(["umount", str(target)], check=True)
            assert found == []
    finally:
        swapping.kill()
        swapping.wait()
        swapping.stdout.close()
    assert bound and refused


SWAP = """
import ctypes, os, sys
libc, (first, second) = ctypes.CDLL(None), map(os.fsencode, sys.argv[1:])
print("up", flush=True)
while True:
    libc.renameat2(-100, first, -100, second, 2)
"""


@as_root
def test_a_pod_is_removed_with_its_parts_and_what_they_show_of_the_host_stays(
    files: HostFiles, tmp_path: Path, run_dir: Path
) -> None:
    kept = tmp_path / "host/sub"
    kept.mkdir(parents=True)
    (kept / "file").write_text("x")
    wanted = pod(Volume("data", "host", path=str(tmp_path / "host")), Volume("memory", "memory"))
    assert (prepare_part(files, wanted, "sub", content(host_paths=(str(tmp_path),))) / "file").exists()
    asyncio.run(files.remove(UID))
    assert (kept / "file").read_text() == "x"
    assert not (run_dir / "sshoal/pods" / UID).exists()
    assert str(run_dir) not in Path("/proc/self/mountinfo").read_text()


def last_words(files: HostFiles, attempt: int, words: bytes) -> str:
    own = asyncio.run(files.prepare_container(pod(), Container("app", "i"), attempt, {}))
    path = Path(own[TERMINATION_KEY])
    assert path.read_bytes() == b"" and mode(str(path)) == 0o666
    path.write_bytes(words)
    return asyncio.run(files.termination_message(UID, "app", attempt))


def test_a_termination_message_is_the_end_of_what_was_written_and_each_attempt_has_its_own(files: HostFiles) -> None:
    assert last_words(files, 0, b"out of cheese") == "out of cheese"
    assert last_words(files, 1, b"a" * 10 + b"b" * 4096) == "b" * 4096
    assert last_words(files, 2, b"\xff!") == "\ufffd!"
    assert asyncio.run(files.termination_message(UID, "app", 0)) == "out of cheese"
    assert last_words(files, 3, b"") == asyncio.run(files.termination_message(UID, "app", 0)) == ""


# ---- removal ----------------------------------------------------------------------------------------------------------------


def test_removal_follows_no_symlink_and_takes_all_of_the_pod_and_nothing_else(
    files: HostFiles, tmp_path: Path, state_dir: Path, run_dir: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    given = content(secrets={"shop/key": {"pw": "x"}})
    path = Path(prepare(files, pod(Volume("tmp", "empty"), files_volume(SECRET)), given)["tmp"])
    (path / "link").symlink_to(outside)
    (path / "locked").mkdir()
    (path / "locked" / "file").write_text("x")
    (path / "locked").chmod(0o500)
    other = prepare(files, pod(Volume("tmp", "empty"), uid="other"))["tmp"]
    assert asyncio.run(files.uids()) == (UID, "other")
    asyncio.run(files.remove(UID))
    asyncio.run(files.remove(UID))
    assert asyncio.run(files.uids()) == ("other",)
    assert (outside / "kept").exists() and Path(other).is_dir()
    assert not (state_dir / "pods" / UID).exists() and not (run_dir / "sshoal" / "pods" / UID).exists()


def test_directories_nested_beyond_any_recursion_limit_are_removed(files: HostFiles, state_dir: Path) -> None:
    path = prepare(files, pod(Volume("tmp", "empty")))["tmp"]
    current = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=current)
        deeper = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    os.close(current)
    asyncio.run(files.remove(UID))
    assert not (state_dir / "pods" / UID).exists()


@as_root
def test_something_foreign_mounted_in_a_pods_directory_is_neither_unmounted_nor_emptied(
    files: HostFiles, tmp_path: Path
) -> None:
    path = Path(prepare(files, pod(Volume("tmp", "empty")))["tmp"]) / "mnt with space"
    path.mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "kept").write_text("x")
    subprocess.run(["mount", "--bind", str(tmp_path / "precious"), str(path)], check=True)
    try:
        with pytest.raises(OSError) as error:
            asyncio.run(files.remove(UID))
        assert error.value.errno == errno.EBUSY and "mnt with space" in str(error.value)
        assert (tmp_path / "precious" / "kept").exists()
    finally:
        subprocess.run(["umount", str(path)], check=True)
    asyncio.run(files.remove(UID))
    assert asyncio.run(files.uids()) == ()


def test_a_pods_directory_that_somebody_else_put_there_is_refused(
    files: HostFiles, state_dir: Path, tmp_path: Path
) -> None:
    (state_dir / "pods").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (state_dir / "pods" / UID).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        prepare(files, pod(Volume("tmp", "empty")))
    assert list((tmp_path / "elsewhere").iterdir()) == []
