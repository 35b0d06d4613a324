"""-o jsonpath: what kubectl's reference promises, and clear refusals of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.jsonpath import parse
from controller.cli.output import emit
from controller.model.errors import UsageError
from tests.shell import Shell

NODES: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "metadata": {"name": "n1", "labels": {"example.org/rack": "7", "zone": "a"}},
            "ready": True,
            "cpus": 4,
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}],
        },
        {"metadata": {"name": "n2", "labels": {"zone": "b"}}, "ready": False, "cpus": 8, "addresses": []},
    ],
    "nothing": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.kind}", "List"),
        ("{$.kind}", "List"),
        ("{['kind']}", "List"),
        ("kind is {.kind}!", "kind is List!"),
        ("{.items[*].metadata.name}", "n1 n2"),
        ("{.items[*]['metadata.name']}", "n1 n2"),
        ("{.items[0].metadata.name}", "n1"),
        ("{.items[-1].metadata.name}", "n2"),
        ("{.items[0:1].metadata.name}", "n1"),
        ("{.items[0,1].metadata.name}", "n1 n2"),
        ("{.items[::2].metadata.name}", "n1"),
        ("{.items[5:].metadata.name}", ""),
        ("{.items[0]['cpus', 'metadata.name']}", "4 n1"),
        ("{.items[0].metadata.*}", 'n1 {"example.org/rack":"7","zone":"a"}'),
        ("{..name}", "n1 n2"),
        ("{..labels.zone}", "a b"),
        (r"{.items[0].metadata.labels.example\.org/rack}", "7"),
        (r"{.items[0].metadata.labels['example\.org/rack']}", "7"),
        ('{.items[?(@.metadata.name=="n2")].cpus}', "8"),
        ("{.items[?(@.metadata.name != 'n2')].cpus}", "4"),
        ("{.items[?(@.cpus>4)].metadata.name}", "n2"),
        ("{.items[?(@.cpus <= 4.5)].metadata.name}", "n1"),
        ("{.items[?(@.ready==true)].metadata.name}", "n1"),
        ("{.items[?(@.ready==1)].metadata.name}", ""),
        ("{.items[?(@.addresses[*])].metadata.name}", "n1"),
        ("{.items[?(@.missing!='x')].metadata.name}", ""),
        ('{.items[*].addresses[?(@.type=="Hostname")].address}', "n1"),
        (r'{range .items[*]}{.metadata.name}{"\t"}{.cpus}{"\n"}{end}', "n1\t4\nn2\t8\n"),
        ("{range .items[*]}{range .addresses[*]}<{@.type}>{end};{end}", "<InternalIP><Hostname>;;"),
        ("{\"{\"}{'it\\'s'}", "{it's"),
        ("{.missing.deeper}{.kind.deeper}{.nothing}", ""),
        ("{.items[*].ready}", "true false"),
        ("{.items[1].metadata}", '{"labels":{"zone":"b"},"name":"n2"}'),
        ("{ .kind }", "List"),
    ],
)
def test_a_template_gives_what_kubectl_gives(template: str, text: str) -> None:
    assert parse(template).render(NODES) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_the_current_object_is_any_value_as_json(value: Any) -> None:
    shown = parse("{@}").render(value)
    assert shown == (value if isinstance(value, str) else "") or json.loads(shown) == value


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (".kind", "no expression in braces"),
        ("{.kind", "column 7, at the end: '}' is expected"),
        ("{kind}", "begins with '.'"),
        ("{}", "begins with '.'"),
        ("{.kind .items}", "'}' is expected"),
        (f"{{.items[{'9' * 5000}]}}", "at most 19 digits"),
        (f"{{.items[0:{'9' * 5000}]}}", "at most 19 digits"),
        (f"{{.items[?(@.n>{'9' * 5000})]}}", "at most 19 digits"),
        ("{.items[}", "a number, a slice"),
        ("{.items[0}", "']' is expected"),
        ("{.items[::0]}", "1 or more"),
        ("{.items['a b']}", "field's name"),
        ("{.items[?(.a==1)]}", "begins with '@'"),
        ("{.items[?(@.a==1 && @.b==2)]}", "')' is expected"),
        ("{.items[?(@.a=~'x')]}", "')' is expected"),
        ('{"x}', "does not end"),
        ("{range .items[*]}{.a}", "{range} without {end}"),
        ("{.a}{end}", "{end} without {range}"),
        ("{range .items[*]}{$.kind}{end}", "'@' is the current object"),
        ("{.items..}", "field's name"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(template: str, problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(template)
    assert problem in refused.value.message and "{.items[*].metadata.name}" in refused.value.hint


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{.items[2]}", r"\[2\] of a list of 2"),
        ("{.items[-3]}", r"\[-3\] of a list of 2"),
        ("{.kind[0]}", "a list is expected"),
        ("{.items[?(@.cpus>'a')]}", "have no order"),
        ("{.items[?(@.metadata.*=='a')]}", "one value with one"),
    ],
)
def test_what_does_not_fit_the_value_is_told(template: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse(template).render(NODES)


@given(st.text(alphabet="{}[]().*?@$'\"\\ab01:,= <"))
def test_any_template_is_read_or_refused(template: str) -> None:
    try:
        parse(template).render(NODES)
    except UsageError:
        pass


def test_get_prints_exactly_what_the_template_says(full: Shell) -> None:
    assert full("get", "pods", "-o", "jsonpath={.items[*].metadata.name}", "--cached")[1] == "lonely"
    assert full("get", "pod", "lonely", "-o=jsonpath={.kind}", "--cached")[1] == "Pod"
    assert full("get", "pods", "-n", "staging", "-o", "jsonpath={.items[*].kind}", "--cached") == (0, "", "")
    assert full("get", "secret", "keys", "-o", "jsonpath={.data}", "--cached")[1] == '{"password":"***"}'


def test_events_can_be_asked_the_same_way(full: Shell) -> None:
    assert full("events", "-o", "jsonpath={.items[0].reason}", "--cached")[1] == "Scaled"
    assert full("get", "events", "-o", "jsonpath={.items[0].reason}", "--cached")[1] == "Scaled"


@pytest.mark.parametrize(("terminal", "shown"), [(True, "a[2Jb\n"), (False, "a\x1b[2J\x07b\n")])
def test_on_a_terminal_no_control_characters_pass(
    terminal: bool, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    emit("a\x1b[2J\x07b\n", "jsonpath={.a}")
    assert capsys.readouterr().out == shown


def test_a_wrong_template_is_told_before_any_host_is_asked(full: Shell) -> None:
    code, out, err = full("get", "pods", "-o", "jsonpath={.items[", "-i", "n1,")
    assert (code, out, "JSONPath, column" in err, "no report" in err) == (2, "", True, False)
    assert "--watch" in full("get", "pods", "-w", "-o", "jsonpath={.kind}")[2]
