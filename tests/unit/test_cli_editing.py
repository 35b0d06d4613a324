"""`diff` and `edit`: what is shown, what is refused, and that no text and no secret is lost or told."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from controller.model.cluster import Record, Ref
from tests import builders
from tests.shell import Shell

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\ndata: {a: red, b: blue}\n"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {one: %s, two: same-value}\n"


@pytest.fixture
def declared(shell: Shell) -> Shell:
    """A config map and a secret that were applied."""
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    (shell.home / "colours.yaml").write_text(CONFIG)
    (shell.home / "keys.yaml").write_text(SECRET % "first-value")
    code, _, err = shell("apply", "-f", "colours.yaml", "-f", "keys.yaml", "-i", "hosts.ini", "--no-wait")
    assert code == 0, err
    return shell


@pytest.fixture
def edit_with(declared: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """`edit` runs a sed script as the editor."""
    declared.home.joinpath("ed.sh").write_text('#!/bin/sh\nsed -i "$SCRIPT" "$1"\n')
    declared.home.joinpath("ed.sh").chmod(0o755)
    monkeypatch.setenv("EDITOR", str(declared.home / "ed.sh"))
    monkeypatch.setenv("TMPDIR", str(declared.home))
    monkeypatch.setattr("tempfile.tempdir", str(declared.home))
    return declared


def kept(shell: Shell) -> list[Path]:
    return sorted(shell.home.glob("sshoal-*.yaml"))


# ---- diff ----


def test_no_difference_is_exit_code_0_and_no_text(declared: Shell) -> None:
    assert declared("diff", "-f", "colours.yaml", "-f", "keys.yaml") == (0, "", "")


def test_a_difference_is_shown_as_a_unified_diff_with_exit_code_1(declared: Shell) -> None:
    (declared.home / "colours.yaml").write_text(CONFIG.replace("blue", "green"))
    code, out, _ = declared("diff", "-f", "colours.yaml")
    lines = out.splitlines()
    assert (code, lines[:2]) == (1, ["--- configmap/colours (declared)", "+++ configmap/colours (file)"])
    assert "-  b: blue" in lines and "+  b: green" in lines and "   a: red" in lines
    assert declared("get", "cm", "colours", "-o", "jsonpath={.data.b}", "--cached")[1] == "blue", "nothing is changed"


def test_a_new_object_is_all_plus(declared: Shell) -> None:
    (declared.home / "colours.yaml").write_text(CONFIG.replace("colours", "shapes"))
    code, out, _ = declared("diff", "-f", "colours.yaml")
    assert (code, {line[0] for line in out.splitlines()[3:]}) == (1, {"+"})


def test_of_a_secret_only_the_keys_that_change_are_told(declared: Shell) -> None:
    (declared.home / "keys.yaml").write_text(SECRET % "second-value")
    code, out, err = declared("diff", "-f", "keys.yaml")
    assert code == 1
    assert "-  one: '*** (before)'" in out and "+  one: '*** (after)'" in out and "   two: '***'" in out
    assert not re.search("value|dmFsdWU", out + err)


def test_an_error_is_not_exit_code_1(declared: Shell, tmp_path: Path) -> None:
    assert declared("diff", "-f", "nothere.yaml")[0] == 2
    assert declared("diff", "-f", "colours.yaml", "--context", str(tmp_path / "none"))[0] == 2
    (declared.home / "colours.yaml").write_text(CONFIG + "more: 1\n")
    assert declared("diff", "-f", "colours.yaml")[0] == 2


def test_what_get_shows_of_a_secret_is_not_declared_in_place_of_its_values(declared: Shell) -> None:
    (declared.home / "seen.yaml").write_text(declared("get", "secret", "keys", "-o", "yaml", "--cached")[1])
    code, _, err = declared("diff", "-f", "seen.yaml")
    assert code == 2 and "stands for a value that is not shown" in err


# ---- edit ----


def edit(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, script: str, target: str = "cm/colours"
) -> tuple[int, str, str]:
    monkeypatch.setenv("SCRIPT", script)
    return shell("edit", target, "--no-wait", "-i", "hosts.ini")


def test_a_saved_change_is_applied_and_the_file_is_gone(edit_with: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = edit(edit_with, monkeypatch, "s/blue/green/")
    assert (code, out) == (0, "configmap/colours configured\n"), err
    assert edit_with("get", "cm", "colours", "-o", "jsonpath={.data}", "--cached")[1] == '{"a":"red","b":"green"}'
    assert kept(edit_with) == []


@pytest.mark.parametrize("script", ["s/nothere/x/", "d", "1d"], ids=["unchanged", "emptied", "only a comment"])
def test_without_a_change_nothing_is_done(edit_with: Shell, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    code, out, err = edit(edit_with, monkeypatch, script)
    assert (code, out, "nothing changed" in err, kept(edit_with)) == (0, "", True, [])


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("s/^data:/dota:/", "dota"),
        ("s/name: colours/name: others/", "cannot be edited"),
        ("s/^kind:.*/kind: [/", "the edited text"),
    ],
    ids=["unknown field", "another name", "no YAML"],
)
def test_a_refused_text_is_kept_and_the_error_says_where(
    edit_with: Shell, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    code, _, err = edit(edit_with, monkeypatch, script)
    (path,) = kept(edit_with)
    assert code == 2 and problem in err and f"your text is kept: {path}" in err
    assert path.stat().st_mode & 0o777 == 0o600
    assert edit_with("get", "cm", "colours", "-o", "jsonpath={.data.b}", "--cached")[1] == "blue"


def test_what_somebody_changed_meanwhile_is_not_overwritten(edit_with: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = edit_with.home / "ed.sh"
    editor.write_text(
        '#!/bin/sh\nsed -i s/blue/green/ "$1"\n'
        "python3 - <<END\nimport sqlite3\n"
        f'd = sqlite3.connect("{edit_with.context}/store.db")\n'
        "d.execute(\"UPDATE meta SET value = value + 1 WHERE key = 'counter'\")\n"
        "d.execute(\"UPDATE records SET version = (SELECT value FROM meta WHERE key = 'counter'),"
        " data = replace(data, 'blue', 'pink') WHERE name = 'colours'\")\nd.commit()\nEND\n"
    )
    code, _, err = edit(edit_with, monkeypatch, "")
    assert code != 0 and "was changed meanwhile" in err and len(kept(edit_with)) == 1
    assert edit_with("get", "cm", "colours", "-o", "jsonpath={.data.b}", "--cached")[1] == "pink"


def test_an_editor_that_fails_changes_nothing(edit_with: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "false")
    code, _, err = edit(edit_with, monkeypatch, "")
    assert code == 2 and "ended with 1" in err and str(kept(edit_with)[0]) in err
    monkeypatch.setenv("SSHOAL_EDITOR", "/nothere/editor -w")
    assert "cannot be started" in edit(edit_with, monkeypatch, "")[2]


def test_secrets_and_nodes_are_not_edited(edit_with: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = edit(edit_with, monkeypatch, "", "secret/keys")
    assert (code, "not shown" in err, kept(edit_with)) == (2, True, [])


def test_of_what_others_own_the_topmost_owner_is_to_be_edited(
    edit_with: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = edit_with.store()
    deployment = builders.deployment("shop")
    revision = builders.replica_set("shop-1")
    pod = builders.bare_pod("shop-1-a")
    store.edit(
        [
            deployment,
            replace(revision, meta=replace(revision.meta, owner=_ref(deployment))),
            replace(pod, meta=replace(pod.meta, owner=_ref(revision))),
        ]
    )
    store.close()
    code, _, err = edit(edit_with, monkeypatch, "", "pod/shop-1-a")
    assert code == 2 and "belongs to deployment/shop" in err and "sshoal edit deployment/shop" in err


def _ref(record: Record) -> Ref:
    return Ref(record.meta.kind, record.meta.name, record.meta.uid)


def test_a_line_break_of_unicode_comes_back_from_edit_and_from_get_as_it_was(
    edit_with: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONFIG.replace("blue", r'"x\x85 y\u2028z"')
    (edit_with.home / "colours.yaml").write_text(text)
    assert edit_with("apply", "-f", "colours.yaml", "-i", "hosts.ini", "--no-wait")[0] == 0
    monkeypatch.setenv("SCRIPT", "s/red/green/")
    code, _, err = edit_with("edit", "configmap/colours", "--no-wait", "-i", "hosts.ini")
    assert code == 0, err
    (edit_with.home / "colours.yaml").write_text(edit_with("get", "cm", "colours", "-o", "yaml", "--cached")[1])
    assert edit_with("diff", "-f", "colours.yaml")[:2] == (0, "")
    shown = edit_with("get", "cm", "colours", "-o", "jsonpath={.data.a}|{.data.b}", "--cached")[1]
    assert shown == "green|x\x85 y\u2028z"
