"""Our reading of inventories against ansible-core's: the written cases of tests/cases/inventory, and generated ones."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controller.act.inventory import VaultKeys, load_inventory
from controller.model.errors import NotFound
from controller.model.inventory import Inventory
from controller.model.inventory_views import graph_text, host_json, list_json
from tests.inventory_oracle import Oracle

CASES = Path(__file__).parent.parent / "cases" / "inventory"
NAMES = sorted(path.name for path in CASES.iterdir())


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    oracle.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_written_inventory_reads_as_ansible_reads_it(name: str, oracle: Oracle) -> None:
    case = CASES / name
    sources = [
        line if "," in line else str(case / line) for line in _lines(case / "sources.txt") or [_only_source(case)]
    ]
    vault_ids = [_vault_id(case, line) for line in _lines(case / "vault_ids.txt")]
    patterns = _lines(case / "patterns.txt")

    ours = load_inventory(sources, vault=VaultKeys.from_specs(vault_ids))

    arguments = [word for source in sources for word in ("-i", source)]
    arguments += [word for vault_id in vault_ids for word in ("--vault-id", vault_id)]
    theirs = oracle.ask(arguments, list(ours.hosts)[:3], patterns)
    assert theirs.listed == list_json(ours), theirs.errors
    assert theirs.graph == graph_text(ours)
    assert theirs.hosts == {host: host_json(ours, host) for host in list(ours.hosts)[:3]}
    assert theirs.selected == {pattern: _selected(ours, pattern) for pattern in patterns}


def test_there_are_at_least_forty_written_inventories() -> None:
    assert len(NAMES) >= 40


def _only_source(case: Path) -> str:
    (source,) = (path.name for path in case.iterdir() if path.name.partition(".")[0] == "hosts")
    return source


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _vault_id(case: Path, line: str) -> str:
    label, at, file = line.rpartition("@")
    return f"{label}{at}{case / file}"


def _selected(inventory: Inventory, pattern: str) -> list[str] | None:
    try:
        return [host.name for host in inventory.select(pattern)]
    except NotFound:
        return None


HOSTS = ["h1", "h2", "web-3", "db.example.org", "192.0.2.9", "n[1:2]", "p:2222"]
GROUPS = ["ga", "gb", "g-c", "g.d", "ge"]
VARIABLES = ["x", "y", "z"]
RAW_VALUES = st.text("ab01.,'\"[]-#=_ eE+", max_size=12).map(str.strip)
PLAIN_VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from("klm"), st.integers(0, 9), max_size=2),
)


@dataclass
class Written:
    """One generated group: what its sections or keys say."""

    hosts: dict[str, dict[str, Any]]
    children: list[str]
    variables: dict[str, Any]


@st.composite
def written_groups(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> dict[str, Written]:
    """Groups in any order; a child comes later in GROUPS than its parent, so there are no circles."""
    variables = st.dictionaries(st.sampled_from(VARIABLES), values, max_size=2)
    groups: dict[str, Written] = {}
    for name in draw(st.permutations(["all", *GROUPS]))[: draw(st.integers(1, 6))]:
        below = GROUPS[GROUPS.index(name) + 1 :] if name != "all" else GROUPS
        groups[name] = Written(
            draw(st.dictionaries(st.sampled_from(HOSTS), variables, max_size=4)),
            draw(st.lists(st.sampled_from(below), max_size=2, unique=True)) if below else [],
            draw(variables),
        )
        if name != "all" and draw(st.booleans()):
            groups[name].variables["ansible_group_priority"] = draw(st.integers(0, 3))
    return groups


def _as_ini(groups: dict[str, Written]) -> str:
    declared = set(groups)
    lines: list[str] = []
    for name, group in groups.items():
        lines.append(f"[{name}]")
        lines += [
            " ".join([host, *(f"{key}={shlex.quote(value)}" for key, value in vars_.items())])
            for host, vars_ in group.hosts.items()
        ]
        lines += [f"[{name}:children]", *group.children]
        lines += [f"[{name}:vars]", *(f"{key} = {value}" for key, value in group.variables.items())]
        declared.update(group.children)
    return "\n".join([*lines, *(f"[{name}]" for name in sorted(declared - set(groups)))]) + "\n"


def _as_yaml(groups: dict[str, Written]) -> str:
    data = {
        name: {
            "hosts": dict(group.hosts),
            "children": dict.fromkeys(group.children),
            "vars": dict(group.variables),
        }
        for name, group in groups.items()
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


@pytest.mark.timeout(
    300
)  # sixty questions to ansible-core, which takes a tenth of a second for each on an idle machine
@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
@given(data=st.data())
def test_generated_inventories_read_as_ansible_reads_them(data: st.DataObject, oracle: Oracle) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sources = []
        for number in range(data.draw(st.integers(1, 2))):
            if data.draw(st.booleans()):
                name, text = f"{number}.ini", _as_ini(data.draw(written_groups(RAW_VALUES)))
            else:
                name, text = f"{number}.yml", _as_yaml(data.draw(written_groups(PLAIN_VALUES)))
            sources.append(_write(directory, name, text))
        files = st.dictionaries(st.sampled_from(VARIABLES), PLAIN_VALUES, max_size=2).map(yaml.safe_dump)
        for group, text in data.draw(st.dictionaries(st.sampled_from(["all", "ungrouped", *GROUPS]), files)).items():
            _write(directory, f"group_vars/{group}.yml", text)
        for host, text in data.draw(st.dictionaries(st.sampled_from(["h1", "n2", "p"]), files)).items():
            _write(directory, f"host_vars/{host}", text)

        ours = load_inventory(sources)

        patterns = [
            data.draw(st.sampled_from(["", "!", "&"])) + data.draw(st.sampled_from([*ours.hosts, *ours.groups, "*"]))
            for _ in range(data.draw(st.integers(1, 4)))
        ]
        pattern = ",".join(patterns) + ","
        theirs = oracle.ask([word for source in sources for word in ("-i", source)], list(ours.hosts)[:1], [pattern])
        assert theirs.listed == list_json(ours), theirs.errors
        assert theirs.graph == graph_text(ours)
        # In what order Ansible walks the groups below a group's children depends on addresses in its memory.
        assert sorted(theirs.selected[pattern] or []) == sorted(_selected(ours, pattern) or [])


def _write(directory: str, name: str, text: str) -> str:
    path = Path(directory, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)
