"""Settings by file and contexts: what is found, what wins, and that nothing wrong is passed over in silence."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from controller.act.store.history import Bounds
from controller.cli import main as door
from controller.cli.config import Config, places, read
from controller.model.errors import ConfigError, UsageError
from tests.shell import Shell

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def written(directory: Path, text: str) -> Path:
    path = directory / "sshoal.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def at_home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell that is told no context."""
    monkeypatch.delenv("SSHOAL_CONTEXT")
    for name in ("SSHOAL_CONFIG", "XDG_CONFIG_HOME", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    return shell


def sample() -> str:
    (block,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes somebody who may not read")
def test_a_directory_of_somebody_else_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `sudo -u ops sshoal …` in root's home."""
    from controller.cli import config

    with tempfile.TemporaryDirectory() as closed:  # 0700
        Path(closed, "sshoal.toml").write_text('context = "theirs"\n')
        monkeypatch.setenv("HOME", closed)
        monkeypatch.chdir(closed)
        os.seteuid(65534)
        try:
            assert config.load("").context == ""
        finally:
            os.seteuid(0)


def test_a_directory_that_was_removed_is_no_hindrance(full: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = full.home / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert full("get", "configmaps", "--cached")[0] == 0


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """As some editors write it; inventories and manifests may have one, too."""
    assert read(written(tmp_path, '\ufeffcontext = "default"\n')).context == "default"


# ---- the file -----------------------------------------------------------------------------------------------------------


def test_the_sample_of_the_documentation_is_read_and_says_all_there_is(tmp_path: Path) -> None:
    from controller.cli import config

    path = written(tmp_path, sample())
    found = read(path)
    assert found.context == "prod" and set(found.contexts) == {"prod", "staging"}
    assert found.contexts["prod"].inventory == (str(tmp_path / "inventories/prod"),)
    assert found.contexts["prod"].vault_ids == (f"prod@{Path.home()}/.vault/prod",)
    assert found.defaults("watch") == {
        "timeout": "5m",
        "namespace": "default",
        "period": "5s",
        "metrics_listen": "127.0.0.1:9464",
        "log_format": "json",
        "log_level": "info",
    }
    assert found.defaults("get") == {"timeout": "5m", "namespace": "default"}
    assert Bounds(**found.history) == Bounds()  # type: ignore[arg-type]  # the sample shows the defaults
    every = {*config._CONTEXT, *config._HISTORY, *(key for table in config._OPTIONS.values() for key in table)}
    assert all(re.search(rf"^{key} = ", sample(), re.MULTILINE) for key in every)


def test_every_setting_of_a_command_is_an_option_of_it() -> None:
    """A setting for which there is no option would be passed over in silence."""
    from controller.cli import config

    commands = typer.main.get_command(door.command_line()).commands  # type: ignore[attr-defined]
    for name in ("watch", "reconcile"):
        known = {parameter.name for parameter in commands[name].params}
        assert {key.replace("-", "_") for key in config._OPTIONS[name]} | {"log_format", "log_level"} <= known
    everywhere = {parameter.name for command in commands.values() for parameter in command.params}
    assert set(config._OPTIONS["options"]) <= everywhere


@pytest.mark.parametrize(
    ("text", "line", "field", "message", "hint"),
    [
        ("contxt = 'x'", 1, "contxt", "no such setting", "did you mean context?"),
        ("[watch]\n\nperiode = '5s'", 3, "watch.periode", "no such setting", "did you mean period?"),
        ("[watch]\nperiod = 5", 2, "watch.period", "a text is expected", ""),
        ("[watch]\nperiod = '5 parsecs'", 2, "watch.period", "not a duration", ""),
        ("[log]\nlevel = 'loud'", 2, "log.level", "one of debug, info", ""),
        ("[history]\nevents = 0", 2, "history.events", "a number from 1", ""),
        ("[history]\nevents-age = '3s'", 2, "history.events-age", "at least a minute", ""),
        ("[contexts.a]\ninventory = 'x'", 2, "contexts.a.inventory", "a list of texts", ""),
        ("[contexts.a]\nallow-executable-inventory = 1", 2, "contexts.a.allow-executable-inventory", "true or false", ""),
        ("[contexts.'a/b']\n", 1, "contexts.a/b", "no name of a context", ""),
        ("context = 'prdo'\n[contexts.prod]", 1, "context", "no context 'prdo'", "did you mean prod?"),
        ("watch = 3", 1, "watch", "a table is expected", ""),
        ("contexts.a = 3", 1, "contexts.a", "a table is expected", ""),
        ("a = \n", 1, "", "invalid value", ""),
        ("a = 1\na = 2", 2, "", "cannot overwrite", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_line_and_field(
    text: str, line: int, field: str, message: str, hint: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    error = caught.value
    assert (error.file, error.line, error.field) == (str(path), line, field)
    assert message in error.problem and hint in error.hint
    assert error.message.startswith(f"{path}:{line}: ")


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "sshoal.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(tmp_path / "sshoal.toml")


@given(st.text(max_size=200))
def test_whatever_a_file_holds_it_is_settings_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "sshoal.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(read(path), Config)
    except UsageError as error:
        assert str(path) in error.message


def test_the_nearest_file_is_found_and_none_above_the_home_directory() -> None:
    home = Path("/home/ada")
    found = list(places(home / "shop" / "web", home, ""))
    assert found == [
        home / "shop/web/sshoal.toml",
        home / "shop/sshoal.toml",
        home / "sshoal.toml",
        home / ".config/sshoal/sshoal.toml",
    ]
    assert list(places(Path("/srv"), home, "/etc/ada"))[-1] == Path("/etc/ada/sshoal/sshoal.toml")


def test_a_file_that_others_can_change_is_passed_over_with_a_note_unless_it_is_asked_for(at_home: Shell) -> None:
    path = written(at_home.home, "context = 'prod'\n[contexts.prod]\n")
    path.chmod(0o666)
    code, out, err = at_home("config", "current-context")
    assert (code, out) == (0, "default\n") and "passed over" in err
    assert at_home("--config", str(path), "config", "current-context") == (0, "prod\n", "")


def test_a_file_that_is_asked_for_must_be_there(at_home: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_home("--config", "nowhere.toml", "get", "pods")[0] == 2
    monkeypatch.setenv("SSHOAL_CONFIG", "nowhere.toml")
    code, _, err = at_home("get", "pods")
    assert code == 2 and "there is no file" in err


# ---- what wins ----------------------------------------------------------------------------------------------------------


def test_flag_wins_over_environment_and_that_over_the_file_and_that_over_the_default(
    at_home: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at_home.home / "context").mkdir()

    def namespace(*words: str) -> str:
        _, _, err = at_home("get", "configmaps", "--context", "./context", "-i", "n1,", *words)
        return err.strip().rpartition(" ")[2]

    assert namespace() == "default"
    written(at_home.home, "[options]\nnamespace = 'from-file'\n")
    assert namespace() == "from-file"
    monkeypatch.setenv("SSHOAL_NAMESPACE", "from-environment")
    assert namespace() == "from-environment"
    assert namespace("-n", "from-flag") == "from-flag"


def test_a_context_brings_its_inventory_namespace_and_vault_ids(at_home: Shell) -> None:
    (at_home.home / "hosts.ini").write_text("[web]\nn1\n")
    text = "[contexts.prod]\ninventory = ['hosts.ini']\nnamespace = 'shop'\ndirectory = 'store'\n"
    written(at_home.home, text)
    code, out, _ = at_home("inventory", "list", "--context", "prod")
    assert code == 0 and json.loads(out)["web"]["hosts"] == ["n1"]
    code, _, err = at_home("--context", "prod", "get", "configmaps")
    assert code == 0 and err.strip().endswith("namespace shop")
    assert (at_home.home / "store" / "store.db").exists()
    assert at_home("--context", "prod", "create", "namespace", "x")[0] == 0  # of a command without -i, too


def test_history_is_kept_as_the_file_says(at_home: Shell) -> None:
    written(at_home.home, "[history]\noperations = 2\n")
    for number in range(4):
        assert at_home("create", "namespace", f"n{number}", "-i", "n1,")[0] == 0
    with closing(sqlite3.connect(at_home.home / ".sshoal/default/store.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM operations").fetchone() == (2,)


def test_settings_and_the_record_know_the_command_however_the_program_is_started(at_home: Shell) -> None:
    """A schedule starts it as a module: then [reconcile] counts as it does for the script, and the record names the command alone."""
    written(at_home.home, "[reconcile]\nmetrics-file = 'sshoal.prom'\n")

    def run(*words: str) -> str:
        program = [sys.executable, "-m", "controller.cli", *words]
        environment = {**os.environ, "PYTHONPATH": str(DOCS.parents[1])}
        return subprocess.run(
            program, check=False, cwd=at_home.home, env=environment, capture_output=True, text=True
        ).stdout

    run("reconcile", "-i", "127.0.0.1:1,")
    assert (at_home.home / "sshoal.prom").exists()
    run("create", "namespace", "x", "-i", "127.0.0.1:1,")
    assert run("operations", "-o", "jsonpath={.items[*].command}") == "create namespace"


# ---- contexts -----------------------------------------------------------------------------------------------------------


def test_which_context_counts(at_home: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def now(*words: str) -> str:
        code, out, _ = at_home(*words)
        assert code == 0
        return out.strip()

    for name in ("made", "flag", "environment"):
        assert at_home("config", "set-context", name)[0] == 0
    assert now("config", "current-context") == "default"
    assert at_home("config", "use-context", "made")[0] == 0
    assert now("config", "current-context") == "made"
    written(at_home.home, "context = 'file'\n[contexts.file]\n")
    assert now("config", "current-context") == "file"
    monkeypatch.setenv("SSHOAL_CONTEXT", "environment")
    assert now("config", "current-context") == "environment"
    assert now("--context", "flag", "config", "current-context") == "flag"
    assert now("config", "current-context", "--context", "flag") == "flag"
    assert now("config", "current-context", "--context", "./some/where") == str(at_home.home / "some/where")


def test_a_context_that_is_not_there_is_told_with_the_nearest(at_home: Shell) -> None:
    at_home("config", "set-context", "staging")
    code, _, err = at_home("get", "pods", "--context", "stagin")
    assert code == 2 and "there is no context 'stagin'" in err and "did you mean staging?" in err
    code, _, err = at_home("config", "use-context", "stagin")
    assert code == 2 and "did you mean staging?" in err
    assert not (at_home.home / ".sshoal/stagin").exists()


@pytest.mark.parametrize("name", ["-x", "a b", "..", "a:b", "é"])
def test_what_is_no_name_of_a_context_is_refused(name: str, at_home: Shell) -> None:
    code, _, _ = at_home("config", "set-context", "--", name)
    assert code == 2
    assert not (at_home.home / ".sshoal").exists()


def test_contexts_are_listed_with_cluster_and_inventory(at_home: Shell) -> None:
    (at_home.home / "hosts.ini").write_text("n1\n")
    at_home("config", "set-context", "staging", "-i", "hosts.ini")
    at_home("create", "namespace", "x", "--context", "staging")
    at_home("config", "use-context", "staging")
    code, out, _ = at_home("config", "get-contexts", "-o", "json")
    (found,) = json.loads(out)
    assert code == 0 and found["current"] and len(found["cluster"]) == 36
    assert found["inventory"] == [str(at_home.home / "hosts.ini")]
    code, out, _ = at_home("config", "get-contexts")
    assert out.splitlines()[1].split()[:2] == ["*", "staging"]
    assert at_home("config", "get-contexts", "-o", "name")[1] == "staging\n"


def test_a_context_that_cannot_be_used_does_not_keep_anybody_from_choosing_another(at_home: Shell) -> None:
    at_home("config", "set-context", "old")
    at_home("config", "use-context", "old")
    (at_home.home / ".sshoal/old").rmdir()
    assert at_home("get", "pods")[0] == 2
    assert at_home("config", "use-context", "default")[0] == 0
    assert at_home("config", "current-context") == (0, "default\n", "")


@pytest.mark.parametrize("content", ["", "bad name\n"])
def test_a_damaged_choice_of_context_can_be_made_anew(at_home: Shell, content: str) -> None:
    (at_home.home / ".sshoal").mkdir(exist_ok=True)
    (at_home.home / ".sshoal" / "current-context").write_text(content)
    code, _, err = at_home("get", "pods")
    assert (code, "current-context: " in err, "sshoal config use-context NAME" in err) == (2, True, True)
    code, out, err = at_home("config", "get-contexts")
    assert (code, "default" in out, err.count("note: "), "current-context: " in err) == (0, True, 1, True)
    assert at_home("config", "use-context", "default")[0] == 0
    assert at_home("config", "get-contexts")[2] == ""
    assert (at_home.home / ".sshoal" / "current-context").read_text() == "default\n"


def test_an_inventory_of_the_file_is_not_changed_elsewhere(at_home: Shell) -> None:
    written(at_home.home, "[contexts.prod]\ninventory = ['a,b,']\n")
    code, _, err = at_home("config", "set-context", "prod", "-i", "c,")
    assert code == 2 and "change it there" in err


def test_view_says_what_is_in_force_and_where_it_is_from(at_home: Shell) -> None:
    path = written(at_home.home, sample())
    code, out, _ = at_home("config", "view", "-o", "json")
    found = json.loads(out)
    assert code == 0 and (found["file"], found["context"]) == (str(path), "prod")
    assert found["options"]["reconcile"]["metrics_file"].endswith("sshoal.prom")
    assert "watch: period" in at_home("config", "view")[1]


def test_the_version_is_told_without_a_command(at_home: Shell) -> None:
    code, out, _ = at_home("--version")
    assert code == 0 and re.fullmatch(r"sshoal \d+\.\d+\.\d+\n", out)
