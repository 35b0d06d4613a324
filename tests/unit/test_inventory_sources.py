"""Where inventories come from: programs only when asked and within bounds, pattern files, a playbook's variables, the samples."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from controller.act.inventory import load_inventory, read_pattern, script
from controller.model.errors import InventoryError, NotFound
from controller.model.inventory import Inventory
from controller.model.inventory_views import graph_text, host_json, list_json
from tests.inventory_oracle import Oracle

ROOT = Path(__file__).parent.parent.parent

DATA = {
    "web": {"hosts": ["a", "b"], "vars": {"x": 1}, "children": ["sub"]},
    "sub": {"hosts": ["c"]},
    "plain": ["d"],
    "_meta": {"hostvars": {"a": {"y": [1, {"z": None}]}, "nobody": {"y": 1}}},
}


def program(directory: Path, body: str) -> str:
    path = directory / "dynamic"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_is_never_run_unless_asked(tmp_path: Path) -> None:
    source = program(tmp_path, f"touch {tmp_path}/ran")
    for sources in ([source], [str(tmp_path)]):
        with pytest.raises(InventoryError, match="this is a program"):
            load_inventory(sources)
    assert not (tmp_path / "ran").exists()


def test_a_program_reads_as_ansible_reads_it(tmp_path: Path) -> None:
    source = program(tmp_path, f"cat <<'END'\n{json.dumps(DATA)}\nEND")
    ours = load_inventory([source], allow_executables=True)
    oracle = Oracle()
    theirs = oracle.ask(["-i", source], ["a"])
    oracle.close()
    assert (theirs.listed, theirs.graph) == (list_json(ours), graph_text(ours))
    assert theirs.hosts == {"a": host_json(ours, "a")}


def test_a_program_without_meta_is_asked_for_each_host(tmp_path: Path) -> None:
    source = program(
        tmp_path,
        """if [ "$1" = --list ]; then echo '{"web": ["a", "b"]}'; elif [ "$2" = a ]; then echo '{"x": 1}'; fi""",
    )
    inventory = load_inventory([source], allow_executables=True)
    assert [dict(host.vars) for host in inventory.hosts.values()] == [{"x": 1}, {}]


@pytest.mark.parametrize(("body", "words"), [
    ("exit 3", "ended with code 3"),
    ("echo no", "no valid JSON"),
    ("echo '[1]'", "no JSON object"),
    ("echo '{\"web\": {\"hosts\": 5}}'", "wrong type"),
    ("echo '{\"web\": [\"-x\"]}'", "not a valid host name"),
    ("echo '{\"a\": {\"children\": [\"a\"]}}'", "contains itself"),
    ("echo '{\"_meta\": 5}'", "_meta.hostvars"),
])  # fmt: skip
def test_what_a_program_does_wrong_is_named(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(InventoryError, match=words) as caught:
        load_inventory([program(tmp_path, body)], allow_executables=True)
    assert caught.value.file == str(tmp_path / "dynamic")


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "DEADLINE_S", 3.0)  # the program has to begin within it
    source = program(tmp_path, f"sleep 300 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(InventoryError, match="did not answer --list within"):
        load_inventory([source], allow_executables=True)
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "cmdline")
    until = time.monotonic() + 20
    while _is_running(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _is_running(child)


def _is_running(command_line: Path) -> bool:
    """A dead process that nobody waited for yet has an empty command line."""
    try:
        return command_line.read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_prints_without_end_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="printed more than 16 MiB"):
        load_inventory([program(tmp_path, "exec yes")], allow_executables=True)


def test_a_text_file_with_an_executable_mode_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("a\n")
    path.chmod(0o755)
    assert list(load_inventory([str(path)]).hosts) == ["a"]


def test_a_pattern_may_come_from_a_file(tmp_path: Path) -> None:
    inventory = load_inventory(["web1,web2,db1,"])
    (tmp_path / "limit").write_text("web1\n\n db1 \n")
    chosen = inventory.select(read_pattern(f"@{tmp_path}/limit"))
    assert [host.name for host in chosen] == ["web1", "db1"]
    chosen = inventory.select(read_pattern(f"@{tmp_path}/limit,!db1"))
    assert [host.name for host in chosen] == ["web1"]
    chosen = inventory.select(read_pattern(f"all[0:1]:@{tmp_path}/limit"))
    assert [host.name for host in chosen] == ["web1", "web2", "db1"]
    assert read_pattern("web:&prod") == "web:&prod"
    assert read_pattern("2001:db8::1") == "2001:db8::1"


def test_variables_beside_a_playbook_win_over_those_beside_the_inventory(tmp_path: Path) -> None:
    for folder, value in (("inventory", "inventory"), ("play", "play")):
        (tmp_path / folder / "group_vars").mkdir(parents=True)
        (tmp_path / folder / "group_vars/all.yml").write_text(f"x: {value}\n{value}: 1\n")
    (tmp_path / "inventory/hosts.ini").write_text("a\n")
    inventory = load_inventory([str(tmp_path / "inventory/hosts.ini")], playbook_directory=str(tmp_path / "play"))
    assert dict(inventory.hosts["a"].vars) == {"x": "play", "inventory": 1, "play": 1}


def test_a_host_knows_where_it_was_first_mentioned_and_all_its_groups(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("# c\n[web]\na\n[site:children]\nweb\n")
    host = load_inventory([str(tmp_path / "hosts.ini")]).hosts["a"]
    assert host.source == f"{tmp_path}/hosts.ini:3"
    assert host.directory == str(tmp_path)
    assert host.groups == ("site", "web")


def test_variables_are_ordinary_data_that_yaml_and_json_can_write(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  vars: {a: {b: [{c: 1}]}}\n  hosts: {h: {d: {e: 2}}}\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("f: {g: [{h: 3}]}\n")
    variables = dict(load_inventory([str(tmp_path / "hosts.yml")]).hosts["h"].vars)
    assert sorted(variables) == ["a", "d", "f"]
    assert yaml.safe_load(yaml.safe_dump(variables)) == json.loads(json.dumps(variables)) == variables


def test_a_text_that_cannot_be_printed_is_shown_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_text('{"all": {"hosts": {"h": {"x": "\\ud800"}}}}')
    assert '"x": "?"' in list_json(load_inventory([str(tmp_path / "hosts.json")]))


def test_views_of_what_is_not_there_are_errors() -> None:
    inventory = Inventory({}, load_inventory(["a,"]).groups)
    with pytest.raises(NotFound):
        host_json(inventory, "b")
    with pytest.raises(NotFound):
        graph_text(inventory, "b")


@pytest.mark.parametrize("name", ["hosts.ini", "hosts.yml"])
def test_the_sample_inventories_load_and_name_three_nodes(name: str) -> None:
    inventory = load_inventory([str(ROOT / "inventory" / name)])
    assert [host.name for host in inventory.select("nodes")] == ["node1", "node2", "node3"]
    for host in inventory.select("nodes"):
        assert host.connection.become
        assert host.labels["sshoal.dev/group-nodes"] == "true"
    assert inventory.warnings == ()


def test_importing_the_model_loads_no_heavy_library() -> None:
    code = "import sys, controller.model.inventory; print([m for m in ('yaml', 'pydantic', 'asyncio', 'cryptography') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_a_list_of_hosts_may_be_longer_than_a_name_of_a_file() -> None:
    names = [f"web{number:03}.example.com" for number in range(500)]
    assert list(load_inventory([",".join(names)]).hosts) == names


def test_the_home_of_a_user_that_there_is_not_is_a_file_that_is_not_there(tmp_path: Path) -> None:
    for work in (lambda: load_inventory(["~nobody-here/hosts.ini"]), lambda: read_pattern("@~nobody-here/hosts")):
        with pytest.raises(InventoryError) as caught:
            work()
        assert caught.value.file.startswith("~nobody-here/")


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes somebody who may not read")
def test_a_source_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        sources = Path(name)
        closed = sources / "closed"
        closed.mkdir(mode=0o700)
        sources.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(InventoryError, match="cannot be read: Permission denied") as caught:
                load_inventory([name])
        finally:
            os.seteuid(0)
        assert caught.value.file == str(closed)
