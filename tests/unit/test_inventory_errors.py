"""Every bad inventory gives one clear error with file and line; nothing is skipped, nothing runs away."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.act.inventory import load_inventory, read_pattern
from controller.model.errors import InventoryError, NotFound, UsageError
from controller.model.inventory_views import graph_text


def problem(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    with pytest.raises(InventoryError) as caught:
        load_inventory([str(path)])
    assert caught.value.file == str(path)
    return str(caught.value).removeprefix(str(directory) + "/")


INI = {
    "host range over the cap": ("[g]\nweb[0:99999]\n", 2, "more than 10000 hosts"),
    "product of ranges over the cap": ("h[1:200]-[1:200]-[1:200]\n", 1, "more than 10000 hosts"),
    "range of astronomic size": ("h[1:999999999]\n", 1, "more than 10000 hosts"),
    "many ranges in one name": ("h" + "[0:9]" * 40 + "\n", 1, "more than 10000 hosts"),
    "cap over several lines": ("a[1:9999]\nb[1:9999]\n", 2, "more than 10000 hosts"),
    "range backwards": ("h[5:1]\n", 1, "ends before it begins"),
    "range without end": ("h[5:]\n", 1, "lacks its end"),
    "range without colon": ("h[5]\n", 1, "not begin:end"),
    "range of too many parts": ("h[1:2:3:4]\n", 1, "not begin:end"),
    "range with step 0": ("h[1:5:0]\n", 1, "step"),
    "range mixes letters and digits": ("h[a:5]\n", 1, "neither of numbers nor of single letters"),
    "range of uneven width": ("h[01:100]\n", 1, "same number of digits"),
    "bracket never closed": ("h[1:2\n", 1, "brackets"),
    "port too large": ("h:70000\n", 1, "port 70000"),
    "port missing": ("h:\n", 1, "names no port"),
    "leading dash": ("-oProxyCommand=x\n", 1, "not a valid host name"),
    "shell characters": ("'h;reboot'\n", 1, "not a valid host name"),
    "command substitution": ("$(reboot)\n", 1, "not a valid host name"),
    "two dots": ("a..b\n", 1, "not a valid host name"),
    "path": ("../etc\n", 1, "not a valid host name"),
    "bidi override": ("h\u202eabc\n", 1, "not a valid host name"),
    "homoglyph": ("wеb1\n", 1, "not a valid host name"),
    "user in the name": ("root@h\n", 1, "not a valid host name"),
    "endless name": ("h" * 300 + "\n", 1, "not a valid host name"),
    "group with shell characters": ("[a;b]\n", 1, "not a valid group name"),
    "group with leading dash": ("[-a]\n", 1, "not a valid group name"),
    "group with bidi": ("[a\u202eb]\n", 1, "not a valid group name"),
    "circle of two": ("[a:children]\nb\n[b:children]\na\n", 4, "group 'b' contains itself: b → a → b"),
    "circle of one": ("[a:children]\na\n", 2, "contains itself"),
    "long circle": ("[a:children]\nb\n[b:children]\nc\n[c:children]\na\n[d]\nh\n", 6, "c → a → b → c"),
    "undefined child": ("[a:children]\nnobody\n", 2, "'nobody', which is not defined"),
    "variables of an undefined group": ("h\n[nobody:vars]\nx=1\n", 2, "not defined"),
    "unknown section": ("[a:hosts_]\n", 1, "unknown kind"),
    "space in a section": ("[a b]\n", 1, "not a section"),
    "word without equals": ("h x\n", 1, "expected key=value, got 'x'"),
    "variable without equals": ("[a]\nh\n[a:vars]\nx\n", 4, "expected key=value"),
    "open quote": ("h x='1\n", 1, "quotes do not match"),
    "priority that is no number": ("[a]\nh\n[a:vars]\nansible_group_priority=high\n", 4, "not a whole number"),
    "YAML inside": ("---\n", 1, "YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), INI.values(), ids=INI)
def test_a_bad_ini_inventory_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    message = problem(tmp_path, "hosts.ini", text)
    assert message.startswith(f"hosts.ini:{line}: ")
    assert words in message


YAML = {
    "no YAML": ("all:\n  hosts: [\n", 3, "not valid YAML"),
    "tab": ("all:\n\thosts:\n", 2, "not valid YAML"),
    "list on top": ("- a\n", 0, "not a mapping of groups"),
    "empty": ("# nothing\n", 0, "empty"),
    "plugin configuration": ("plugin: aws_ec2\n", 1, "inventory plugin 'aws_ec2'"),
    "hosts as a list": ("all:\n  hosts:\n    - a\n", 2, "hosts of group 'all' is not a mapping"),
    "group as a list": ("web:\n  - a\n", 1, "group 'web' is not a mapping"),
    "host variables as text": ("all:\n  hosts:\n    a: b c\n", 3, "variables of 'a'"),
    "number as a host": ("all:\n  hosts:\n    5:\n", 3, "5 is not a string"),
    "number as a group": ("1:\n  hosts:\n", 1, "1 is not a string"),
    "number as a variable": ("all:\n  vars:\n    1: x\n", 3, "1 is not a string"),
    "bad host name": ("all:\n  hosts:\n    ok:\n    'a b':\n", 4, "not a valid host name"),
    "newline in a host name": ('all:\n  hosts:\n    "a\\nb":\n', 3, "not a valid host name"),
    "huge range": ("all:\n  hosts:\n    h[1:100000]:\n", 3, "more than 10000 hosts"),
    "circle": ("a:\n  children:\n    b:\n      children:\n        a:\n", 3, "contains itself"),
    "duplicate key": ("all:\n  hosts:\n    a:\n    b:\n    a:\n", 5, "'a' is there twice"),
    "python tag": ("all:\n  vars:\n    x: !!python/object/apply:os.system [ls]\n", 3, "tag"),
    "custom tag": ("all:\n  vars:\n    x: !mine 1\n", 3, "the tag !mine is refused"),
    "binary": ("all:\n  vars:\n    x: !!binary aGk=\n", 3, "refused"),
    "tag on a mapping": ("all:\n  vars: !mine {a: 1}\n", 2, "the tag !mine is refused"),
    "second document": ("all:\n  hosts: {a: }\n---\nb:\n", 3, "second document"),
    "unknown alias": ("all:\n  vars: *nobody\n", 2, "*nobody"),
    "mapping as a key": ("all:\n  vars:\n    ? {a: 1}\n    : x\n", 3, "a key that is itself"),
    "impossible date": ("all:\n  vars:\n    x: 2020-13-45\n", 3, "not a valid timestamp"),
    "endless number": ("all:\n  vars:\n    x: " + "9" * 5000 + "\n", 3, "number of more than"),
    "merge of a scalar": ("all:\n  vars:\n    <<: 5\n", 3, "merge key"),
    "deep nesting": ("all: " + "[" * 100 + "]" * 100 + "\n", 1, "nested more than 64 deep"),
    "very deep nesting": ("all: " + "[" * 100_000 + "\n", 1, "nested more than 64 deep"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), YAML.values(), ids=YAML)
def test_a_bad_yaml_inventory_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    message = problem(tmp_path, "hosts.yml", text)
    assert message.startswith(f"hosts.yml:{line}: " if line else "hosts.yml: ")
    assert words in message


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "once aliases are written out" in problem(tmp_path, "hosts.yml", "\n".join(lines))


def test_a_merge_key_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["all:", "  vars:", "    m0: &m0 {k0: 0}"]
    lines += [f"    m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}], k{n}: {n}}}" for n in range(1, 12)]
    assert "written out" in problem(tmp_path, "hosts.yml", "\n".join(lines))


def test_an_alias_inside_what_it_names_is_refused(tmp_path: Path) -> None:
    assert "refers to nothing before it, or to what contains it" in problem(
        tmp_path, "hosts.yml", "all: &x\n  vars: *x\n"
    )


def test_json_may_not_repeat_keys_nor_nest_without_end(tmp_path: Path) -> None:
    assert "twice" in problem(tmp_path, "hosts.json", '{"all": {"hosts": {"a": {}, "a": {}}}}')
    assert "nested" in problem(tmp_path, "hosts.json", '{"a":' * 5000 + "1" + "}" * 5000)


@pytest.mark.parametrize(("name", "text", "words"), [
    ("group_vars/web.yml", "- a\n", "not a mapping of variables"),
    ("group_vars/web.yml", "x: [\n", "not valid YAML"),
    ("group_vars/web.yml", "x: 1\nx: 2\n", "twice"),
    ("group_vars/web/a.yml", "x: !evil 1\n", "refused"),
    ("host_vars/h.yml", "1: x\n", "not a string"),
    ("host_vars/h.json", "{", "not valid YAML"),
])  # fmt: skip
def test_a_bad_variable_file_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / "hosts.ini").write_text("[web]\nh\n")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(InventoryError, match=words) as caught:
        load_inventory([str(tmp_path / "hosts.ini")])
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.exit_code == 2


def test_an_absent_source_an_empty_list_and_no_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="there is no such inventory"):
        load_inventory([str(tmp_path / "nothing.ini")])
    with pytest.raises(InventoryError, match="no inventory is given"):
        load_inventory([])
    with pytest.raises(InventoryError, match="not a valid host name"):
        load_inventory(["a,b;c"])


def test_a_huge_file_and_one_of_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.ini").write_bytes(b"#" * (4 * 1024 * 1024))
    with pytest.raises(InventoryError, match="larger than 3 MiB"):
        load_inventory([str(tmp_path / "big.ini")])
    (tmp_path / "latin.ini").write_bytes(b"# gr\xfcn is fine in a comment\nh x=gr\xfcn\n")
    with pytest.raises(InventoryError, match="not UTF-8") as caught:
        load_inventory([str(tmp_path / "latin.ini")])
    assert caught.value.line == 2


def test_a_toml_inventory_is_refused_by_name(tmp_path: Path) -> None:
    assert "TOML" in problem(tmp_path, "hosts.toml", "[web]\n")


@pytest.mark.parametrize("text", ["h [", "[[[", "h a='", "~(", "&", "!", "web[99999999999]", "@nobody"])
def test_a_bad_pattern_is_a_usage_error(tmp_path: Path, text: str) -> None:
    inventory = load_inventory(["web1,web2,"])
    with pytest.raises(UsageError):
        inventory.select(read_pattern(text))


@pytest.mark.parametrize("text", ["web*[", "web*]", "~[", "all:!we[b", "~web[[:digit:]]", "~(web|db)[0-9]]"])
def test_brackets_that_do_not_match_never_select_more(text: str) -> None:
    """Ansible leaves them out, so that `~[` is every host. A comma leaves a regular expression whole."""
    inventory = load_inventory(["web1,web2,db1,"])
    with pytest.raises(InventoryError, match="do not match"):
        inventory.select(text)
    assert [host.name for host in inventory.select("~^[^]w]+1,")] == ["db1"]


def test_a_pattern_part_that_names_nothing_is_an_error_even_as_an_exclusion() -> None:
    inventory = load_inventory(["web1,web2,"])
    for pattern in ("wbe1", "all:!wbe1", "all:&wbe1", "zz*", "~^zz"):
        with pytest.raises(NotFound, match="no host or group matches"):
            inventory.select(pattern)
    with pytest.raises(InventoryError, match="empty"):
        inventory.select(" ")


def test_hosts_of_one_address_are_a_warning_that_names_both_places(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("a ansible_host=10.0.0.1\nb ansible_host=10.0.0.1\nc ansible_host=10.0.0.1 ansible_port=23\n")
    inventory = load_inventory([str(path)])
    assert inventory.warnings == (
        f"{path}:2: b and a ({path}:1) have the same address 10.0.0.1, port 22",
    )  # fmt: skip


def test_one_address_behind_two_bastions_is_two_hosts(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text(
        "a ansible_host=10.0.0.1 ansible_ssh_common_args='-J x'\nb ansible_host=10.0.0.1 ansible_ssh_common_args='-J y'\n"
    )
    assert load_inventory([str(path)]).warnings == ()


def test_groups_may_not_nest_without_end(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("\n".join(f"[g{n}:children]\ng{n + 1}" for n in range(2000)) + "\n[g2000]\n")
    with pytest.raises(InventoryError, match="'g2000' is nested 2001 deep"):
        load_inventory([str(path)])


def test_a_graph_that_multiplies_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    lattice = [f"[{side}{n}:children]\na{n + 1}\nb{n + 1}" for n in range(40) for side in "ab"]
    path.write_text("\n".join([*lattice, "[a40]", "[b40]", "h"]))
    inventory = load_inventory([str(path)])
    assert [host.name for host in inventory.select("a0")] == ["h"]
    with pytest.raises(InventoryError, match="more than 100000 lines"):
        graph_text(inventory)


FRAGMENTS = st.sampled_from([
    "[", "]", "[a]", "[a:children]", "[a:vars]", "[b]", "a", "b", "h[1:3]", ":", "x=1", "'", '"', "#", "\\", "\n", "\n", " ",
    "\t", "\u2028", "{", "}", "- ", "hosts:", "all:\n  ", "&x ", "*x", "!vault ", "!!set ", "<<: ", "? ", "|\n", "0", "9" * 20,
    "{{ x }}", "\x00", "\ufeff", "é",
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(FRAGMENTS, max_size=30).map("".join), st.sampled_from(["hosts", "hosts.ini", "hosts.yml", "hosts.json"])
)
def test_any_text_is_an_inventory_or_an_inventory_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_text(text, encoding="utf-8")
    try:
        inventory = load_inventory([str(path)])
    except InventoryError as error:
        assert error.file == str(path)
    else:
        assert set(inventory.groups) >= {"all", "ungrouped"}
