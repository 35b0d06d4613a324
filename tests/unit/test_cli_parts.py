"""Parts of the command line that are functions of their arguments: ports, targets of init, taming of terminals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.act.inventory import load_inventory
from controller.cli.begin import Target, inventory_text, parse_target
from controller.cli.forward import parse_ports
from controller.cli.logs import tame
from controller.cli.output import age
from controller.cli.yamltext import dump
from controller.model.errors import UsageError
from controller.model.selectors import parse_selector
from controller.model.yamlscan import scan


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (600, "10m"), (179 * 60 + 59, "179m"),
        (3 * 3600, "3h"), (3 * 3600 + 50 * 60, "3h50m"), (8 * 3600 + 60, "8h"), (47 * 3600 + 3599, "47h"),
        (48 * 3600, "2d"), (53 * 3600, "2d5h"), (8 * 86400 + 3600, "8d"), (729 * 86400, "729d"),
        (730 * 86400, "2y"), (800 * 86400, "2y70d"), (8 * 365 * 86400 + 86400, "8y"),
    ],
)  # fmt: skip
def test_ages_are_written_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("word", "pair"),
    [("8080", (8080, "8080")), ("9000:8080", (9000, "8080")), (":8080", (0, "8080")), ("9000:http", (9000, "http")), ("http", (0, "http"))],
)  # fmt: skip
def test_ports_are_read_as_kubectl_reads_them(word: str, pair: tuple[int, str]) -> None:
    assert parse_ports([word]) == [pair]


@pytest.mark.parametrize(
    "word", ["", "0", "99999", "9" * 5000, "a:80", "80:", "70000:80", "\u00b2:80", "80:80:80", "-1"]
)
def test_what_is_no_port_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_ports([word])


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("root@192.0.2.10", Target("192.0.2.10", "192.0.2.10", "root", 22)),
        ("web1.example.com", Target("web1.example.com", "web1.example.com", "", 22)),
        ("ubuntu@Web_1:2222", Target("web-1", "Web_1", "ubuntu", 2222)),
        ("root@[2001:db8::1]:2222", Target("2001-db8--1", "2001:db8::1", "root", 2222)),
    ],
)
def test_init_makes_a_name_that_an_inventory_and_a_node_can_have(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "@", "root@", "a:0", "a:99999", "a b", "root@-x", "a;b"])
def test_init_refuses_what_is_no_host(text: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        parse_target(text)


def test_the_inventory_that_init_writes_says_how_each_host_is_reached(tmp_path: Path) -> None:
    targets = [parse_target(text) for text in ("root@a.example.com", "ubuntu@B_1:2222", "root@[2001:db8::1]")]
    path = tmp_path / "hosts.ini"
    path.write_text(inventory_text(targets, key="/keys/id", become=False))
    found: dict[str, Any] = {name: host.connection for name, host in load_inventory([str(path)]).hosts.items()}
    assert [(item.address, item.port, item.user, item.become, item.private_key_file) for item in found.values()] == [
        ("a.example.com", 22, "root", False, "/keys/id"),
        ("B_1", 2222, "ubuntu", True, "/keys/id"),
        ("2001:db8::1", 22, "root", False, "/keys/id"),
    ]


def test_two_hosts_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        inventory_text([parse_target("root@a"), parse_target("b@a")], key="", become=False)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\ttext", b"plain\ttext"),
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m"),
        (b"a\x1b[2Jb\x1b[10;10Hc", b"abc"),
        (b"\x1b]0;title\x07x", b"x"),
        (b"\x1b]52;c;aGk=\x1b\\x", b"x"),
        (b"bell\x07 back\x08", b"bell back"),
        ("übergroß 🐳".encode(), "übergroß 🐳".encode()),
    ],
    ids=["plain", "colours stay", "cursor", "title", "clipboard", "controls", "other languages"],
)
def test_logs_on_a_terminal_keep_colours_and_nothing_else(line: bytes, shown: bytes) -> None:
    assert tame(line) == shown


@given(st.binary())
def test_no_escape_but_a_colour_passes(line: bytes) -> None:
    rest = tame(line)
    position = rest.find(b"\x1b")
    while position >= 0:
        assert rest[position : position + 2] == b"\x1b["
        end = position + 2
        while end < len(rest) and 0x20 <= rest[end] <= 0x3F:
            end += 1
        assert rest[end : end + 1] == b"m"
        position = rest.find(b"\x1b", position + 1)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True), ("app=web", True), ("app==web", True), ("app!=web", False), ("other!=x", True), ("app", True),
        ("!app", False), ("!other", True), ("app in (web, db)", True), ("app notin (web)", False),
        ("other notin (web)", True), ("other in (web)", False), ("app=web,tier=front", True), ("app=web,tier=back", False),
        ("example.com/x in (a,b),app=web", False),
    ],
)  # fmt: skip
def test_selectors_mean_what_they_mean_in_kubectl(selector: str, matches: bool) -> None:
    assert parse_selector(selector)({"app": "web", "tier": "front"}) is matches


@pytest.mark.parametrize("selector", ["a=b=c", "in (a)", "a in b", "a,,b", "=x", "a in (b", "a b"])
def test_a_selector_that_cannot_be_read_is_refused(selector: str) -> None:
    with pytest.raises(UsageError, match="is not a label selector"):
        parse_selector(selector)


@pytest.mark.parametrize(
    "text", ["1e3", "0644", "0x1F", "1_0", "true", "no", "y", "~", "", "a: b", "- a", "x\x85y", "é", "1.5.2", ".5"]
)
def test_yaml_that_is_written_means_the_same_to_every_reader(text: str) -> None:
    """Of YAML 1.1 and 1.2: what is a text stays one."""
    written = dump({"a": text})
    (document,), problems = scan(written, "a.yaml")
    assert (document.data, problems) == ({"a": text}, [])
    assert yaml.safe_load(written) == {"a": text}
