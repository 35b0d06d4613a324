"""What a shell may offer: commands, options, and names of objects out of a real store; and the three shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.cli import main as door
from controller.cli.completing import FILES, complete
from controller.cli.completion import SCRIPTS
from nodeagent.protocol import ContainerReport
from tests import builders
from tests.shell import Shell

ROOT = typer.main.get_command(door.command_line())
SSHOAL = Path(sys.executable).with_name("sshoal")


def offers(*words: str) -> list[str]:
    return [value for value, _ in complete(ROOT, words)]


@pytest.fixture
def stored(full: Shell) -> Shell:
    """Two namespaces, two nodes, and a pod whose agent told of its containers."""
    store = full.store()
    store.edit([builders.node("node2", 2), builders.config_map("other", {}, "staging")])
    store.close()
    return full


def test_commands_groups_and_options_come_with_a_word_of_help(stored: Shell) -> None:
    found = dict(complete(ROOT, ["ro"]))
    assert found == {"rollout": "Look at, undo, pause, resume or restart a rollout"}
    assert offers("rollout", "re") == ["restart", "resume"]
    assert "--follow" in offers("logs", "--f") and "-f" in offers("logs", "-")
    assert offers("logs", "--fol") == ["--follow"]
    assert offers("") == offers()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("get pods", ["pods"]),
        ("get pods lo", ["lonely"]),
        ("get po lonely ", []),
        ("get deployment/w", ["deployment/web"]),
        ("get deploy/w", ["deploy/web"]),
        ("get configmaps -n staging ", ["other"]),
        ("get configmaps -nstaging ", ["other"]),
        ("get configmaps --namespace=staging ", ["other"]),
        ("describe deployment ", ["web"]),
        ("delete -n staging configmap ", ["other"]),
        ("delete pods,conf", ["pods,configmaps"]),
        ("delete -l app=web po", ["pods", "poddisruptionbudgets"]),
        ("delete -l app=web pods ", []),
        ("delete pods --all ", []),
        ("scale deployment/w", ["deployment/web"]),
        ("rollout status d", ["deployment/web"]),
        ("rollout status deploy w", ["web"]),
        ("wait --for ", ["ready", "available", "complete", "failed", "delete"]),
        ("events --for deployment/", ["deployment/web"]),
        ("node cordon ", ["node1", "node2"]),
        ("node cordon node1 ", []),
        ("operations --node node2", ["node2"]),
        ("simulate --lose node1,", ["node1,node2"]),
        ("exec lon", ["lonely"]),
        ("exec -it lonely -- l", []),
        ("logs deployment/", ["deployment/web"]),
        ("label --all dep", ["deployments"]),
        ("label deployments --all ", []),
        ("wait -l app=web pods,j", ["pods,jobs"]),
        ("describe -l app=web pods ", []),
        ("logs -l app=web ", []),
        ("get pods -n st", ["staging"]),
        ("get pods -o j", ["json", "jsonpath="]),
        ("get pods -o c", ["custom-columns="]),
        ("events -o c", []),
        ("get pods --sort-by .metadata.c", [".metadata.creationTimestamp"]),
        ("get pods --output=y", ["--output=yaml"]),
        ("watch --log-level w", ["warning"]),
        ("completion z", ["zsh"]),
        ("apply -f ", [FILES]),
        ("cp lo", [FILES, "lonely:"]),
        ("get nonsense ", []),
        ("nonsense ", []),
    ],
)
def test_what_is_offered_for(words: str, expected: list[str], stored: Shell) -> None:
    assert offers(*words.split(" ")) == expected


def test_contexts_are_offered_and_names_come_from_the_one_that_is_chosen(
    stored: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSHOAL_CONTEXT")
    shutil.copytree(stored.context, stored.home / ".sshoal" / "prod")
    assert offers("--context", "") == ["prod"]
    assert offers("get", "pods", "--context", "prod", "") == ["lonely"]
    assert offers("--context", "prod", "get", "pods", "") == ["lonely"]
    assert offers("get", "pods", "") == []
    monkeypatch.setenv("SSHOAL_CONTEXT", "prod")
    assert offers("get", "pods", "") == ["lonely"]


def test_a_context_may_lie_in_a_directory_whose_name_is_not_utf_8(
    stored: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = stored.context.with_name(os.fsdecode(b"caf\xe9"))
    stored.context.rename(elsewhere)
    monkeypatch.setenv("SSHOAL_CONTEXT", str(elsewhere))
    assert offers("get", "pods", "") == ["lonely"]


def test_containers_are_those_that_the_agent_told_of(stored: Shell) -> None:
    store = stored.store()
    pod = next(iter(store.load().pods.values()))
    report = builders.report(pod)
    told = replace(report, containers=(ContainerReport("main", "running"), ContainerReport("side", "running")))
    store.edit([replace(pod, report=told)])
    store.close()
    assert offers("logs", "lonely", "-c", "") == ["main", "side"]


def test_a_damaged_store_or_file_of_settings_offers_nothing_and_tells_nothing(stored: Shell) -> None:
    (stored.context / "store.db").write_bytes(b"nonsense" * 1000)
    assert stored("__complete", "get", "pods", "") == (0, "", "")
    (stored.home / "sshoal.toml").write_text("nonsense")
    assert stored("__complete", "get", "pods", "") == (0, "", "")
    code, out, err = stored("__complete", "get", "pods")
    assert (code, out, err) == (0, "pods\n", "")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from([*"ab-/=,: ", "--", "get", "pods", "-n", "exec", "--context", "node", "-it", "--for"]),
        max_size=6,
    )
)
def test_whatever_is_typed_there_is_an_answer(stored: Shell, words: list[str]) -> None:
    offers(*words)


def test_nothing_heavy_is_loaded_for_an_answer() -> None:
    program = "import sys; sys.argv = ['sshoal', '__complete', 'get', 'pods', '']; from controller.cli import main; main.main()"
    program += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "asyncssh", "pydantic", "yaml", "rich", "cryptography", "tenacity", "nodeagent.protocol"}
    assert not heavy & set(done.stdout.split())


# ---- the shells -----------------------------------------------------------------------------------------------------


def _bash(line: str) -> list[str]:
    script = (
        SCRIPTS["bash"]
        + f'\nCOMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; _sshoal; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return ["bash", "--norc", "-c", script]


def _zsh(line: str) -> list[str]:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    stubs = "compdef() { : }\n_files() { print files }\n_describe() { print -l -- ${(P)2} }\n"
    return ["zsh", "-f", "-c", f"{stubs}{SCRIPTS['zsh']}\nwords=({quoted}); CURRENT={len(words)}; _sshoal"]


def _fish(line: str) -> list[str]:
    return ["fish", "--no-config", "-c", f"{SCRIPTS['fish']}\ncomplete -C {line!r}"]


@pytest.mark.parametrize("typed_in", [_bash, _zsh, _fish], ids=["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sshoal get pods lo", "lonely"),
        ("sshoal rollout und", "undo"),
        ("sshoal get deployment/w", "deployment/web"),
        ("sshoal get ", "pods"),
    ],
)
def test_shells_offer_it(typed_in: Callable[[str], list[str]], line: str, expected: str, stored: Shell) -> None:
    command = typed_in(line)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: tools/packages.sh test installs it")
    environment = {**os.environ, "PATH": f"{SSHOAL.parent}:{os.environ['PATH']}", "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    found = [line.split("\t")[0].split(":")[0] for line in done.stdout.splitlines()]
    assert expected in found, done.stderr


def test_bash_replaces_only_what_is_behind_a_colon(stored: Shell) -> None:
    environment = {**os.environ, "PATH": f"{SSHOAL.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        _bash("sshoal get pods --output=y"), capture_output=True, text=True, env=environment, timeout=30, check=True
    )
    assert done.stdout == "yaml\n"


def test_the_script_is_printed_and_an_unknown_shell_is_refused(shell: Shell) -> None:
    code, out, _ = shell("completion", "bash")
    assert code == 0 and out.startswith("_sshoal() {")
    assert shell("completion", "csh")[0] == 2
