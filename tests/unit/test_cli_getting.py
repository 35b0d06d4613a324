"""`get` as kubectl users know it: the order of objects, columns of their own choice, labels, tables without headers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.act.store import Event
from controller.cli.columns import parse_columns
from controller.cli.ordering import natural, parse_order
from controller.model.cluster import Record
from controller.model.errors import UsageError
from tests import builders
from tests.shell import Shell


def config(name: str, data: dict[str, str], created_s: float, **labels: str) -> Record:
    record = builders.config_map(name, data)
    return replace(record, meta=replace(record.meta, created=builders.moment(created_s), labels=labels))


@pytest.fixture
def maps(shell: Shell) -> Shell:
    """Config maps, a deployment, events."""
    store = shell.store()
    told = [
        Event(
            builders.START_S + seconds, reason, "text", "ConfigMap", "default", "set-2", count=count, first_wall_s=1.0
        )
        for seconds, reason, count in ((5, "Second", 1), (9, "Third", 2), (1, "First", 3))
    ]
    records = [
        config("set-2", {"size": "10Gi"}, 30, app="web", tier="front"),
        config("set-10", {"size": "500Mi"}, 10, app="db"),
        config("set-1", {}, 20),
        builders.deployment("web", replicas=7),
        builders.deployment("api", replicas=12),
        builders.node("node1"),
    ]
    store.edit(records, events=told)
    store.close()
    return shell


def names(shell: Shell, *words: str) -> list[str]:
    code, out, err = shell("get", *words, "-o", "name", "--cached")
    assert code == 0, err
    return [line.partition("/")[2] for line in out.splitlines()]


# ---- --sort-by ----


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(".metadata.name", ["set-1", "set-2", "set-10"], id="texts with numbers in them"),
        pytest.param("{.metadata.name}", ["set-1", "set-2", "set-10"], id="in braces"),
        pytest.param("metadata.name", ["set-1", "set-2", "set-10"], id="without a dot"),
        pytest.param(".metadata.creationTimestamp", ["set-10", "set-1", "set-2"], id="times"),
        pytest.param(".data.size", ["set-1", "set-10", "set-2"], id="quantities, and who has none first"),
        pytest.param(".data['size']", ["set-1", "set-10", "set-2"], id="quoted name"),
    ],
)
def test_objects_are_sorted_by_a_field(maps: Shell, path: str, expected: list[str]) -> None:
    assert names(maps, "cm", "--sort-by", path) == expected
    table = maps("get", "cm", "--sort-by", path, "--cached", "--no-headers")[1]
    assert [line.split()[0] for line in table.splitlines()] == expected


def test_numbers_are_sorted_as_numbers_and_the_order_holds_for_each_kind(maps: Shell) -> None:
    assert names(maps, "deploy", "--sort-by=.spec.replicas") == ["web", "api"]
    both = names(maps, "deploy,cm", "--sort-by=.metadata.creationTimestamp")
    assert sorted(both) == sorted(["api", "web", "set-1", "set-2", "set-10"])
    assert [name for name in both if name.startswith("set")] == ["set-10", "set-1", "set-2"]


def test_events_are_sorted_too(maps: Shell) -> None:
    told = ("get", "events", "--cached", "-o", "custom-columns=REASON:.reason", "--no-headers")
    assert maps(*told, "--sort-by", ".lastTimestamp")[1].split() == ["First", "Second", "Third"]
    assert maps(*told, "--sort-by", ".count")[1].split() == ["Second", "Third", "First"]
    lines = maps("get", "events", "--cached", "--sort-by", ".reason", "--no-headers")[1].splitlines()
    assert [next(word for word in line.split() if word in ("First", "Second", "Third")) for line in lines] == [
        "First",
        "Second",
        "Third",
    ]
    assert maps("get", "events", "--cached", "--sort-by=.metadata.creationTimestamp")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param("cm --sort-by .nonsense", "couldn't find any field with path '.nonsense'", id="no such field"),
        pytest.param("cm --sort-by .metadata", "has no order", id="objects"),
        pytest.param("cm --sort-by {.a}{.b}", "is no single JSONPath", id="two paths"),
        pytest.param("cm --sort-by .a[", "JSONPath", id="not closed"),
        pytest.param("cm --sort-by .a=b", "the end of the path is expected", id="something behind"),
        pytest.param("cm -o custom-columns", "no custom columns given", id="custom-columns alone"),
        pytest.param("cm -o custom-columns=", "no custom columns given", id="no columns"),
        pytest.param("cm -o custom-columns=NAME", "unexpected custom-columns spec: 'NAME'", id="no path"),
        pytest.param("cm -o custom-columns=A:.a,", "unexpected custom-columns spec: ''", id="comma at the end"),
        pytest.param("cm -o custom-columns=A:.a[?(x)]", "JSONPath", id="wrong path"),
        pytest.param("cm -o custom-column=A:.a", "custom-columns=NAME:PATH,…", id="misspelt"),
        pytest.param("cm -L app,,tier", "has an empty label", id="empty label"),
        pytest.param("events -o name", "-o name", id="events have no names"),
    ],
)
def test_what_is_not_understood_is_refused(maps: Shell, words: str, message: str) -> None:
    code, out, err = maps("get", *words.split(), "--cached")
    assert (code, out) == (2, "")
    assert message in err


def test_nothing_to_sort_is_no_error(maps: Shell) -> None:
    code, out, err = maps("get", "jobs", "--sort-by", ".nonsense", "--cached")
    assert (code, out, err) == (0, "", "no jobs found in namespace default\n")


def test_what_goes_on_has_no_order(shell: Shell) -> None:
    """The lines of --watch come as things change. Without a store it ends at once."""
    code, _, err = shell("get", "pods", "--watch", "--sort-by", ".metadata.name", "--cached")
    assert code == 1 and err.startswith("warning: --watch requested, --sort-by will be ignored\n")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1Ti", "500Gi", "2Gi"], ["2Gi", "500Gi", "1Ti"]),
        (["2", "500m", "10"], ["500m", "2", "10"]),
        (["10x", "9x", "1Ti"], ["1Ti", "9x", "10x"]),
        (["25%", 3, "1", None, 2], [None, 2, 3, "1", "25%"]),
        ([1.5, 1, 2], [1, 1.5, 2]),
        (["b", "a", "B"], ["B", "a", "b"]),
        ([], []),
    ],
)
def test_numbers_come_before_texts_and_what_is_absent_first(values: list[Any], expected: list[Any]) -> None:
    objects = [{} if value is None else {"a": value} for value in values]
    assert [one.get("a") for one in parse_order(".a").sorted(objects, lambda one: one)] == expected


@pytest.mark.parametrize("value", [True, {"b": 1}, [1]])
def test_what_has_no_order_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="has no order"):
        parse_order(".a").sorted([{"a": value}], lambda one: one)


@pytest.mark.parametrize(
    ("less", "more"),
    [("a2", "a10"), ("a", "a1"), ("a-1", "a1"), ("1", "a"), ("a1b", "a1c"), ("9" * 5000, "1" + "0" * 5000)],
)
def test_numbers_in_texts_count_as_such(less: str, more: str) -> None:
    assert natural(less) < natural(more)


# ---- custom-columns ----


def test_columns_are_those_that_are_asked_for(maps: Shell) -> None:
    asked = "custom-columns=NAME:.metadata.name,App:{.metadata.labels.app},ALL:.metadata.labels.*"
    code, out, _ = maps("get", "cm", "-o", asked, "--cached")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "App", "ALL"],
        ["set-1", "<none>", "<none>"],
        ["set-10", "db", "db"],
        ["set-2", "web", "web,front"],
    ]
    assert (
        maps("get", "cm", "set-1", "-o", "custom-columns=A:metadata.name", "--cached", "--no-headers")[1] == "set-1\n"
    )


def test_a_list_that_is_too_short_has_none(maps: Shell) -> None:
    asked = "custom-columns=NAME:.metadata.name,SECOND:.spec.template.spec.containers[1].image,R:.spec.replicas"
    out = maps("get", "deploy", "-o", asked, "--cached")[1]
    assert [line.split() for line in out.splitlines()[1:]] == [["api", "<none>", "12"], ["web", "<none>", "7"]]


def test_a_path_may_have_colons_and_commas_in_brackets() -> None:
    columns = parse_columns("A:.a['x','y'],B:.b[0:2]")
    assert columns.header == ("A", "B")
    assert columns.row({"a": {"x": True, "y": None}, "b": [{"c": 1}, 2, 3]}) == ["true,", '{"c":1},2']


def test_what_an_object_holds_cannot_control_a_terminal() -> None:
    assert parse_columns("A:.a").row({"a": "one\n\x1b[31mtwo"}) == ["one two"]


def test_the_values_of_secrets_are_not_in_columns(full: Shell) -> None:
    out = full("get", "secrets", "-o", "custom-columns=DATA:.data.*", "--cached", "--no-headers")[1]
    assert out == "***\n"


def test_none_found_is_told_in_columns_too(maps: Shell) -> None:
    code, out, err = maps("get", "jobs", "-o", "custom-columns=A:.a", "--cached")
    assert (code, out, err) == (0, "", "no jobs found in namespace default\n")


# ---- labels, headers ----


def test_labels_stand_in_columns_behind_the_others(maps: Shell) -> None:
    out = maps("get", "cm", "-L", "tier,example.org/app", "-L", "app", "--show-labels", "--cached")[1]
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["NAME", "DATA", "AGE", "TIER", "APP", "APP", "LABELS"]
    assert [line[-4:] for line in lines[1:]] == [
        ["<none>", "<none>", "<none>", "<none>"],
        ["<none>", "<none>", "db", "app=db"],
        ["front", "<none>", "web", "app=web,tier=front"],
    ]


def test_a_nodes_labels_are_shown_and_those_of_a_host_that_is_none_are_not_known(maps: Shell) -> None:
    assert "node1" in maps("get", "nodes", "-L", "kubernetes.io/hostname", "--cached", "--no-headers")[1].split()[1:]
    (maps.home / "hosts.ini").write_text("new ansible_host=127.0.0.1 ansible_port=1\n")
    lines = maps("get", "nodes", "--show-labels", "-i", "hosts.ini")[1].splitlines()
    assert lines[0].split()[-1] == "LABELS" and len(lines) == 3
    assert lines[2].split()[0] == "new" and lines[2].split()[-1] == "<none>"


def test_without_headers_only_objects_are_printed(maps: Shell) -> None:
    out = maps("get", "deploy,cm", "--no-headers", "--cached")[1]
    assert [line.split()[0] for line in out.splitlines()] == [
        "deployment.apps/api",
        "deployment.apps/web",
        "configmap/set-1",
        "configmap/set-10",
        "configmap/set-2",
    ]
    assert maps("get", "events", "--no-headers", "--show-labels", "--cached")[1].splitlines()[0].endswith("<none>")


def test_documents_have_neither_headers_nor_columns_of_labels(maps: Shell) -> None:
    plain = maps("get", "cm", "-o", "json", "--cached")[1]
    assert maps("get", "cm", "-o", "json", "--cached", "--no-headers", "--show-labels", "-L", "app")[1] == plain


# ---- --field-selector ----


@pytest.fixture
def places(shell: Shell) -> Shell:
    """Two pods on two nodes, of which one is cordoned, a third on none, and an event of each kind."""
    store = shell.store()
    pods = [
        replace(builders.bare_pod(f"p{number}"), node=node) for number, node in ((1, "node1"), (2, "node2"), (3, ""))
    ]
    running = [
        replace(pod, report=builders.report(pod)) if pod.node else replace(pod, unplaced="no room") for pod in pods
    ]
    cordoned = replace(builders.node("node2"), cordoned=True)
    told = [
        Event(builders.START_S, "Pulled", "text", "Pod", "default", "p1"),
        Event(builders.START_S, "Failed", "text", "Pod", "default", "p2", warning=True),
    ]
    store.edit([*running, builders.node("node1"), cordoned, builders.namespace("staging")], events=told)
    store.close()
    return shell


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pods --field-selector spec.nodeName=node1", ["p1"]),
        ("pods --field-selector spec.nodeName==node1", ["p1"]),
        ("pods --field-selector spec.nodeName!=node1", ["p2", "p3"]),
        ("pods --field-selector spec.nodeName=", ["p3"]),
        ("pods --field-selector status.phase=Running", ["p1", "p2"]),
        ("pods --field-selector status.phase=Running,spec.nodeName!=node2", ["p1"]),
        ("pods --field-selector spec.restartPolicy=Always,metadata.namespace=default", ["p1", "p2", "p3"]),
        ("pods --field-selector spec.hostNetwork=true", []),
        ("pods --field-selector metadata.name=p2", ["p2"]),
        ("nodes --field-selector spec.unschedulable=true", ["node2"]),
        ("nodes --field-selector spec.unschedulable=false", ["node1"]),
        ("ns --field-selector status.phase=Active", ["default", "staging"]),
    ],
)
def test_objects_are_chosen_by_fields(places: Shell, words: str, expected: list[str]) -> None:
    assert names(places, *words.split()) == expected
    lines = places("get", *words.split(), "--no-headers", "--cached")[1].splitlines()
    assert [line.split()[0] for line in lines] == expected, "tables show the same"


def test_events_are_chosen_by_fields(places: Shell) -> None:
    code, out, _ = places("get", "events", "--field-selector", "type=Warning", "--no-headers", "--cached")
    assert (code, len(out.splitlines()), "Failed" in out) == (0, 1, True)
    of_one = places("get", "events", "--field-selector", "involvedObject.name=p1", "--no-headers", "--cached")[1]
    assert "Pulled" in of_one and "Failed" not in of_one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pods --field-selector status.reason=x", "a Pod is not chosen by status.reason"),
        ("pods,cm --field-selector status.phase=x", "a ConfigMap is not chosen by status.phase"),
        ("pods --field-selector status.phase", "is not a field selector"),
        ("pods --field-selector status.phase>1", "is not a field selector"),
        ("pods p1 --field-selector status.phase=x", "name cannot be provided when a field selector is specified"),
    ],
)
def test_fields_that_choose_nothing_are_refused(places: Shell, words: str, message: str) -> None:
    code, out, err = places("get", *words.split(), "--cached")
    assert (code, out, message in err) == (2, "", True), err
