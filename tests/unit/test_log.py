"""What passes say: one line for each thing, in two forms, with nothing of a host's that could harm a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.cli.log import Log
from controller.loop import Pass
from controller.model.cluster import Sighting, Unseen
from controller.model.errors import InventoryError, StoreError, UsageError
from nodeagent.protocol import AgentEvent
from tests import builders
from tests.shell import Shell
from tests.unit.test_metrics import a_pass, node_world

EVIL = "no\x1b]0;owned\x07 route\nERROR forged"


def said(*passes: Pass, form: str = "json", level: str = "debug") -> list[Any]:
    out = io.StringIO()
    log = Log(form, level, lambda: builders.START_S, out)
    for done in passes:
        log.passed(done)
    lines = out.getvalue().splitlines()
    return [json.loads(line) for line in lines] if form == "json" else lines


def a_world(sightings: Mapping[str, Sighting], *things: Any) -> Pass:
    return a_pass(node_world(sightings, *things))


def test_a_change_is_a_line_with_the_fields_that_programs_look_for() -> None:
    lines = said(a_world({"n1": builders.seen("n1")}, builders.bare_pod("web")))
    (bound,) = [line for line in lines if line.get("verb") == "bind"]
    assert (bound["event"], bound["level"], bound["pass"]) == ("Change", "info", 1)
    assert (bound["node"], bound["pod"], bound["namespace"], bound["kind"]) == ("n1", "web", "default", "Pod")
    assert bound["time"] == "2023-11-14T22:13:20.000Z"
    assert bound["reason"] and bound["message"]
    assert lines[-1]["event"] == "Pass" and lines[-1]["outcome"] in ("settled", "waiting")


def test_text_says_the_same_words_as_plan_and_events() -> None:
    lines = said(a_world({"n1": builders.seen("n1")}, builders.bare_pod("web")), form="text", level="info")
    assert any(line.startswith("bind     pod default/web: ") for line in lines)


def test_what_hosts_say_is_one_harmless_line() -> None:
    event = AgentEvent(1, builders.START_S, "Warning", "BackOff", EVIL, "u", "default/web", "main")
    done = a_world({"n1": Unseen("unreachable", EVIL), "n2": builders.seen("n2", events=(event,))})
    for form in ("json", "text"):
        out = io.StringIO()
        Log(form, "debug", lambda: 0.0, out).passed(done)
        lines = out.getvalue().splitlines()
        assert not any(character in out.getvalue() for character in "\x1b\x07")
        assert not any(line.startswith("ERROR") for line in lines)
        assert any("forged" in line for line in lines)
    (told,) = [line for line in said(done) if line["event"] == "AgentEvent"]
    assert (told["node"], told["pod"], told["container"], told["reason"]) == ("n2", "web", "main", "BackOff")


def test_a_note_is_said_once_until_it_ends() -> None:
    silent, well = a_world({"n1": Unseen("unreachable", "no route")}), a_world({"n1": builders.seen("n1")})
    notes = [
        line
        for line in said(silent, silent, well, silent)
        if line["event"] == "Note" and "no report" in line["message"]
    ]
    assert [line["pass"] for line in notes] == [1, 4]
    assert {line["level"] for line in notes} == {"warning"}


def test_of_a_flood_of_events_only_the_beginning_is_told() -> None:
    events = tuple(AgentEvent(number, 0.0, "Normal", "Started", f"event {number}") for number in range(1000))
    lines = said(a_world({"n1": builders.seen("n1", events=events)}))
    assert 0 < sum(line["event"] == "AgentEvent" for line in lines) <= 50


@pytest.mark.parametrize(
    ("level", "events"), [("debug", {"Change", "Note", "Pass"}), ("warning", {"Note"}), ("error", set())]
)
def test_levels_choose(level: str, events: set[str]) -> None:
    done = a_world({"n1": builders.seen("n1"), "n2": Unseen("auth", "no")}, builders.bare_pod("web"))
    calm = replace(
        done, plan=replace(done.plan, changes=tuple(replace(one, warning=False) for one in done.plan.changes))
    )
    assert {line["event"] for line in said(calm, level=level)} == events


@pytest.mark.parametrize(("form", "level"), [("xml", "info"), ("json", "loud")])
def test_what_is_no_format_or_level_is_refused(form: str, level: str) -> None:
    with pytest.raises(UsageError):
        Log(form, level, lambda: 0.0)


def test_an_error_that_ends_the_program_is_a_line_too() -> None:
    out = io.StringIO()
    Log("json", "info", lambda: 0.0, out).failed(InventoryError("no such group", file="hosts.ini", line=3, hint="look"))
    line = json.loads(out.getvalue())
    assert (line["level"], line["event"], line["message"], line["hint"]) == (
        "error",
        "InventoryError",
        "hosts.ini:3: no such group",
        "look",
    )


def test_what_passes_stumble_over_is_said_once_until_one_succeeds() -> None:
    out = io.StringIO()
    log = Log("text", "info", lambda: 0.0, out)
    full, broken = StoreError("no space left", hint="free some"), InventoryError("not YAML", file="hosts.yaml")
    well = a_world({"n1": builders.seen("n1")})
    for error in (full, full, StoreError("no space left"), broken, broken):
        log.stumbled(error)
    log.passed(well)
    log.passed(well)
    log.stumbled(full)
    told = [line for line in out.getvalue().splitlines() if line.startswith(("error: ", "passes "))]
    assert told == [
        "error: no space left",
        "error: hosts.yaml: not YAML",
        "passes succeed again",
        "error: no space left",
    ]


# ---- commands -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def dead_host(shell: Shell) -> Shell:
    """An inventory of one host where nothing listens."""
    (shell.home / "hosts.ini").write_text("n1 ansible_host=127.0.0.1 ansible_port=1\n")
    return shell


def test_reconcile_writes_metrics_for_node_exporter_and_counts_on(dead_host: Shell) -> None:
    words = ("reconcile", "-i", "hosts.ini", "--metrics-file", "sshoal.prom")
    assert [dead_host(*words)[0] for _ in range(2)] == [4, 4]
    path = dead_host.home / "sshoal.prom"
    found = {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(path.read_text())
        for one in family.samples
    }
    assert found["sshoal_passes_total", "hosts-missing"] == 2
    assert found["sshoal_host_errors_total", "n1", "unreachable"] == 2
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_run_that_fails_is_counted_and_told_as_json(dead_host: Shell) -> None:
    (dead_host.home / "bad.ini").write_text("[web\n")
    words = ("reconcile", "-i", "bad.ini", "--metrics-file", "sshoal.prom", "--log-format", "json")
    code, out, err = dead_host(*words)
    assert (code, out) == (2, "")
    assert json.loads(err)["level"] == "error"
    assert 'sshoal_passes_total{outcome="failed"} 1' in (dead_host.home / "sshoal.prom").read_text()


def test_reconcile_logs_json_on_standard_error_and_nothing_else(dead_host: Shell) -> None:
    code, out, err = dead_host("reconcile", "-i", "hosts.ini", "--log-format", "json", "--log-level", "debug")
    assert (code, out) == (4, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["event"] for line in lines} == {"Note", "Pass"}


def test_where_metrics_cannot_be_written_is_told(dead_host: Shell) -> None:
    code, _, err = dead_host("reconcile", "-i", "hosts.ini", "--metrics-file", "nowhere/x.prom")
    assert code == 2 and "no directory" in err
    code, _, err = dead_host("watch", "-i", "hosts.ini", "--metrics-listen", "localhost:1")
    assert code == 2 and "127.0.0.1:9464" in err


def test_metrics_need_no_more_than_a_private_directory(dead_host: Shell, tmp_path: Path) -> None:
    """The file for node_exporter is readable; the directory of the context is not."""
    dead_host("reconcile", "-i", "hosts.ini", "--metrics-file", str(tmp_path / "x.prom"))
    assert dead_host.context.stat().st_mode & 0o777 == 0o700
