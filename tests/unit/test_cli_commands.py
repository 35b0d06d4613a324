"""The commands as they are typed: what they print, where, and with which exit code. A real store in tmp_path, no hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest
import typer

from controller.act.lock import pass_lock
from controller.cli import main as door
from controller.model.cluster import Missing, Ref
from tests import builders
from tests.shell import Shell

# ---- start ----


@pytest.mark.parametrize("module", door.MODULES)
def test_a_command_is_found_in_the_module_that_has_it(module: str) -> None:
    """A command is looked up without loading the others: one that is missing here would be unknown."""
    assert set(typer.main.get_command(door.command_line([module])).commands) == set(door.MODULES[module])  # type: ignore[attr-defined]


def test_help_loads_nothing_heavy() -> None:
    """What costs tens of milliseconds each is imported by the commands that need it."""
    heavy = (
        "asyncio",
        "asyncssh",
        "pydantic",
        "yaml",
        "sqlite3",
        "rich",
        "cryptography",
        "tenacity",
        "nodeagent.protocol",
    )
    program = "import sys, controller.cli.main; controller.cli.main.command_line(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not set(heavy) & set(loaded)


# ---- errors ----


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        pytest.param(["get", "podz"], "knows no kind 'podz'", "did you mean", id="unknown kind"),
        pytest.param(["get", "svc"], "Service: Kubernetes has it", "docs/limits.md", id="kind that only Kubernetes has"),
        pytest.param(["delete", "ingresses.networking.k8s.io", "web"], "Ingress: Kubernetes has it", "", id="its full name"),
        pytest.param(["get", "networkpolicies"], "NetworkPolicy: Kubernetes has it", "", id="its plural"),
        pytest.param(["get", "pods", "-o", "xml"], "-o xml", "json", id="unknown format"),
        pytest.param(["get", "pods", "-l", "a=b=c"], "is not a label selector", "app=web", id="selector"),
        pytest.param(["get", "pods", "-w", "-o", "json"], "--watch", "-o table", id="watch as json"),
        pytest.param(["get", "pods,events", "--cached"], "shown by themselves", "sshoal events", id="events among others"),
        pytest.param(["get", "events", "-o", "name", "--cached"], "-o name", "json", id="events have no names"),
        pytest.param(["get", "pod", "nothere", "--cached"], 'pod "nothere" not found', "", id="no such pod"),
        pytest.param(["describe", "deploy", "nothere", "--cached"], "not found", "", id="describe of nothing"),
        pytest.param(["node", "cordon", "nod1"], "no node 'nod1'", "did you mean node1?", id="misspelt node"),
        pytest.param(["node", "confirm-dead", "node1"], "how it is known", "--powered-off", id="dead without a reason"),
        pytest.param(
            ["node", "confirm-dead", "node1", "--wiped", "--yes"], "answered when it was last asked", "", id="dead though it answers"
        ),
        pytest.param(["node", "forget", "node1"], "nobody can be asked", "--yes", id="no terminal to ask"),
        pytest.param(["scale", "deploy", "web", "db", "--replicas", "1"], "one object at a time", "", id="scale of two"),
        pytest.param(["scale", "deploy", "nothere", "--replicas", "1"], "not found", "", id="kind and name apart"),
        pytest.param(["rollout", "undo", "deployment"], "'deployment' alone is", "deployment/web", id="rollout of a kind"),
        pytest.param(["rollout", "history", "deploy/web", "--revision", "7"], "has no revision 7", "", id="no such revision"),
        pytest.param(["rollout", "undo", "cm", "settings"], "a ConfigMap has no rollout", "", id="rollout of a config map"),
        pytest.param(["drain", "node1"], "no such command 'drain'", "sshoal node drain", id="kubectl's drain"),
        pytest.param(["patch", "deployment/web"], "no such command 'patch'", "sshoal edit", id="patch"),
        pytest.param(["expose", "deployment/web"], "no such command 'expose'", "docs/limits.md", id="expose"),
        pytest.param(["apply", "-f", "a", "--dry-run=client"], "no such option: --dry-run", "plan -f FILE", id="dry run"),
        pytest.param(["apply", "-k", "overlays/prod"], "no such option: -k", "kustomize build", id="kustomize"),
        pytest.param(["create", "-f", "web.yaml"], "no such option: -f", "sshoal apply -f", id="create of a file"),
        pytest.param(["watch", "--period", "0", "-i", "n1,"], "time between polls", "2s", id="watch without a pause"),
        pytest.param(["reconcile", "--period", "0s", "-i", "n1,"], "time between polls", "2s", id="no period"),
        pytest.param(["logs", "web"], 'pod "web" not found', "", id="logs of no pod"),
        pytest.param(["logs", "lonely"], "on no node yet", "describe pod lonely", id="logs of a pod without a node"),
        pytest.param(["logs", "configmap/settings"], "has no containers", "", id="logs of a config map"),
        pytest.param(["exec", "lonely"], "missing argument", "sshoal exec --help", id="exec without a command"),
        pytest.param(["port-forward", "lonely", "99999"], "no port", "9000:8080", id="port out of range"),
        pytest.param(["operations", "--serial", "9" * 20], "--serial", "operations --help", id="serial beyond the store's"),
        pytest.param(["operations", "--limit", "9" * 20], "--limit", "operations --help", id="limit beyond the store's"),
        pytest.param(["image", "push", "x.tar", "-i", "n1,"], "there is no archive", "podman save", id="no archive"),
        pytest.param(["inventory", "list"], "no inventory", "sshoal init", id="no inventory"),
        pytest.param(["inventory", "list", "-i", "nothere.ini"], "no such inventory", "comma", id="inventory not there"),
        pytest.param(["init", "root@"], "names no host", "root@192.0.2.10", id="no host to begin with"),
        pytest.param(["init", "a", "--output", "."], "is there already", "another --output", id="a directory as inventory"),
        pytest.param(["init", "a", "--key", "nokey"], "there is no key", "ssh-keygen", id="no key"),
        pytest.param(["get", "pods", "-n", "No_Good"], "'No_Good' cannot be a namespace", "team-1", id="no namespace"),
        pytest.param(["create", "namespace", "No_Good"], "No_Good", "", id="bad namespace"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_clear_error_and_exit_code_2(
    full: Shell, words: list[str], message: str, hint: str
) -> None:
    code, _, err = full(*words)
    assert code == 2
    assert message in err and hint in err
    assert "Traceback" not in err


_SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
_CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\n"


@pytest.mark.parametrize("command", ["diff", "plan", "delete"])
def test_files_without_any_object_are_an_error(full: Shell, command: str) -> None:
    (full.home / "empty.yaml").write_text("---\n# nothing\n")
    (full.home / "items.yaml").write_text("apiVersion: v1\nkind: List\nitems: []\n")
    assert full(command, "-f", "empty.yaml") == (2, "", "error: empty.yaml: no objects in it\n")
    code, _, err = full(command, "-f", "empty.yaml", "-f", "items.yaml")
    assert (code, err) == (2, "error: empty.yaml, items.yaml: no objects in them\n")


def test_directories_below_are_read_when_that_is_asked_for(full: Shell) -> None:
    (full.home / "k8s" / "base").mkdir(parents=True)
    (full.home / "k8s" / "base" / "a.yaml").write_text(_CONFIG.replace("NAME", "a"))
    said = "error: k8s holds no .yaml, .yml or .json files\n  → -R looks into its directories too\n"
    assert full("diff", "-f", "k8s") == (2, "", said)
    (full.home / "k8s" / "b.yaml").write_text(_CONFIG.replace("NAME", "b"))
    assert "configmap/a" not in full("diff", "-f", "k8s")[1]
    out = full("diff", "-f", "k8s", "-R")[1]
    assert "configmap/a (file)" in out and "configmap/b (file)" in out


@pytest.mark.parametrize("words", [("diff", "-f", ""), ("delete", "-f", ""), ("get", "pods", "-i", "")], ids=" ".join)
def test_an_empty_name_is_not_the_working_directory(full: Shell, words: tuple[str, ...]) -> None:
    (full.home / "here.yaml").write_text(_CONFIG.replace("NAME", "settings"))
    code, out, err = full(*words)
    assert (code, out) == (2, "") and "an empty name" in err


def test_an_address_is_no_file(full: Shell) -> None:
    code, _, err = full("diff", "-f", "https://example.org/web.yaml")
    assert code == 2 and "https://example.org/web.yaml is not fetched" in err and "curl" in err


def test_an_empty_file_among_others_is_none(full: Shell) -> None:
    (full.home / "empty.yaml").write_text("")
    (full.home / "config.yaml").write_text(_CONFIG.replace("NAME", "a"))
    assert full("diff", "-f", "empty.yaml", "-f", "config.yaml")[0] == 1


def test_lenient_says_that_nothing_is_left(full: Shell) -> None:
    (full.home / "service.yaml").write_text(_SERVICE)
    code, out, err = full("diff", "-f", "service.yaml", "--lenient")
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == "note: nothing is left to do: every object was left out"


def test_the_hint_of_lenient_counts_all_files(full: Shell) -> None:
    (full.home / "config.yaml").write_text(_CONFIG.replace("NAME", "a"))
    (full.home / "mixed.yaml").write_text(
        f"{_SERVICE}---\n{_CONFIG.replace('NAME', 'b')}---\n{_SERVICE.replace('Service', 'Ingress')}"
    )
    code, _, err = full("diff", "-f", "mixed.yaml", "-f", "config.yaml")
    assert code == 2
    assert err.splitlines()[-1] == "  → --lenient would run ConfigMap a, ConfigMap b and leave out the rest"
    (full.home / "service.yaml").write_text(_SERVICE)
    (full.home / "wrong.yaml").write_text(_CONFIG.replace("NAME", "-"))
    assert "--lenient would" not in full("diff", "-f", "service.yaml", "-f", "wrong.yaml")[2]


def test_without_a_store_the_error_says_how_to_begin(shell: Shell) -> None:
    code, _, err = shell("get", "pods")
    assert code == 1 and "there is no store" in err and "sshoal init" in err


# ---- reading ----


def test_get_without_an_inventory_says_that_it_shows_what_was_stored(full: Shell) -> None:
    code, out, err = full("get", "deployments")
    assert code == 0
    assert out.splitlines()[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert out.splitlines()[1].split()[:2] == ["web", "0/3"]
    assert "last pass stored" in err


def test_cached_asks_nobody_and_says_nothing(full: Shell) -> None:
    assert full("get", "pods", "--cached", "-i", "n1,")[2] == ""


def test_get_all_marks_each_name_with_its_kind(full: Shell) -> None:
    _, out, _ = full("get", "all", "--cached")
    assert "pod/lonely" in out and "deployment.apps/web" in out


def test_names_are_for_other_commands_to_read(full: Shell) -> None:
    assert full("get", "deploy,po", "-o", "name", "--cached")[1].split() == ["deployment.apps/web", "pod/lonely"]


@pytest.mark.parametrize(
    ("labels", "found"), [("app=web", True), ("app!=web", False), ("app in (a,web)", True), ("!app", False)]
)
def test_a_selector_chooses_by_labels(full: Shell, labels: str, found: bool) -> None:
    _, out, err = full("get", "pods", "-l", labels, "--cached")
    assert ("lonely" in out) == found
    assert ("no pods found in namespace default" in err) == (not found)


def test_one_named_object_is_printed_as_itself_and_several_as_a_list(full: Shell) -> None:
    one = json.loads(full("get", "pod", "lonely", "-o", "json", "--cached")[1])
    both = json.loads(full("get", "pods", "-o", "json", "--cached")[1])
    assert one["kind"] == "Pod" and one["metadata"]["name"] == "lonely"
    assert both["kind"] == "List" and both["items"] == [one]


def test_another_namespace_shows_nothing_of_this_one(full: Shell) -> None:
    _, out, err = full("get", "pods", "-n", "staging", "--cached")
    assert out == "" and "namespace staging" in err


def test_all_namespaces_have_a_column(full: Shell) -> None:
    assert full("get", "cm", "-A", "--cached")[1].split()[:2] == ["NAMESPACE", "NAME"]


def test_events_can_be_asked_of_one_object(full: Shell) -> None:
    _, out, _ = full("events", "--for", "deployment/web", "--cached")
    assert "Scaled" in out and "deployment/web" in out
    assert "no events" in full("events", "--for", "pod/lonely", "--cached")[2]


def test_while_another_controller_works_a_wait_counts_on_hosts_that_are_no_nodes_yet(shell: Shell) -> None:
    store = shell.store()
    store.edit([replace(builders.bare_pod("lonely"), unplaced="there are no nodes yet")])
    store.close()
    (shell.home / "hosts.ini").write_text("node1 ansible_host=192.0.2.1\n")
    with pass_lock(shell.context / "pass.lock"):
        code, _, told = shell("wait", "pod/lonely", "--timeout", "0.1s")
        assert (code, "no node: there are no nodes yet" in told) == (3, True), "no host can come: that is trouble"
        code, _, told = shell("wait", "pod/lonely", "--timeout", "0.1s", "-i", "hosts.ini")
        assert (code, "no node" in told) == (3, False)


def test_a_plan_installs_nothing_on_hosts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock it would replace the agents that another controller, of another version, has just put there."""
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    made: list[object] = []
    monkeypatch.setattr("controller.act.bootstrap.AgentDeployer", lambda *given: made.append(given))
    code, out, _ = shell("plan", "-i", "hosts.ini")
    assert (code, "node1 gives no report" in out) == (0, True)
    assert made == []


def test_a_command_that_waits_for_another_controller_goes_on_alone_when_that_one_ends(shell: Shell) -> None:
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    store = shell.store()
    store.edit([builders.bare_pod("lonely")])
    with ExitStack() as other:
        other.enter_context(pass_lock(shell.context / "pass.lock"))
        ends = threading.Timer(0.5, other.close)
        ends.start()
        code, _, told = shell("wait", "pod/lonely", "--timeout", "4s", "-i", "hosts.ini")
        ends.join()
    assert (code, "node1 gives no report" in told) == (3, True)
    store.close()


def test_describe_shows_the_events_of_the_object(full: Shell) -> None:
    _, out, _ = full("describe", "deployment", "web", "--cached")
    assert out.startswith("Name:             web") and "is scaled to 3" in out


def test_the_history_of_a_rollout_tells_what_the_pods_of_a_revision_were(full: Shell) -> None:
    web = full.store()
    [deployment] = web.load().deployments.values()
    owner = Ref("Deployment", "web", deployment.meta.uid)
    sets = []
    for number in (1, 2):
        pods = builders.template(f"app:{number}", requests={"cpu": f"{number}50m"})
        one = builders.replica_set(f"web-{number}", 0, pods)
        sets.append(replace(one, revision=number, meta=replace(one.meta, owner=owner)))
    web.edit(sets)
    web.close()
    _, listed, _ = full("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in listed.splitlines()] == ["REVISION", "1", "2"]
    _, told, _ = full("rollout", "history", "deployment/web", "--revision", "1")
    assert told.startswith("deployment.apps/web with revision #1\nPod template:\n")
    assert "app:1" in told and "150m" in told and "app:2" not in told


# ---- changing ----


@pytest.mark.parametrize("verb", ["apply", "plan"])
def test_a_mistake_in_a_clusters_first_manifest_leaves_nothing_behind(shell: Shell, verb: str) -> None:
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    (shell.home / "bad.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: []}\n")
    code, _, told = shell(verb, "-f", "bad.yaml", "-i", "hosts.ini")
    assert (code, "bad.yaml:4: spec.containers" in told) == (2, True)
    assert not shell.context.exists()


def test_a_secret_that_is_applied_unchanged_does_not_take_back_what_another_user_gave_it_meanwhile(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record would name a value that is not there any more, and no host would ever get it."""
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {token: abc}\n"
    (shell.home / "keys.yaml").write_text(secret)
    store = shell.store()

    def apply() -> tuple[int, str, str]:
        with pass_lock(shell.context / "pass.lock"):
            return shell("apply", "-f", "keys.yaml", "--no-wait", "-i", "hosts.ini")

    def another_user(_: object) -> None:
        [record] = store.load().declared.values()
        store.edit([replace(record, hash="newer")], secrets={"default/keys": ("newer", b"sealed")})

    assert apply() == (0, "secret/keys created\n", "")
    monkeypatch.setattr("controller.cli.workloads.tell_warnings", another_user)
    assert apply() == (0, "secret/keys unchanged\n", "")
    assert store.sealed_secrets(["default/keys"]) == {"default/keys": ("newer", b"sealed")}
    store.close()


def test_cordon_is_recorded_and_told_once(full: Shell) -> None:
    assert full("node", "cordon", "node1")[1] == "node/node1 cordoned\n"
    assert full("node", "cordon", "node1")[1] == "node/node1 is cordoned already\n"
    store = full.store()
    assert store.load().nodes["node1"].cordoned
    store.close()
    assert full("node", "uncordon", "node1")[1] == "node/node1 uncordoned\n"


@pytest.mark.parametrize(
    "words",
    [
        ("scale", "deployment/web", "--replicas", "2"),
        ("delete", "deployment/web"),
        ("rollout", "status", "deployment/web"),
        ("rollout", "restart", "deployment/web"),
        ("rollout", "pause", "deployment/web"),
    ],
    ids=" ".join,
)
def test_every_verb_asks_for_the_vault_password_that_it_is_told_to(full: Shell, words: tuple[str, ...]) -> None:
    (full.home / "hosts.ini").write_text("node1 ansible_host=192.0.2.1\n")
    code, _, told = full(*words, "-i", "hosts.ini", "--vault-id", "dev@prompt")
    assert (code, "the vault id 'dev' wants a prompt, and nobody can be asked here" in told) == (2, True)


def test_the_status_of_a_rollout_is_told_without_waiting_too(shell: Shell) -> None:
    store = shell.store()
    store.edit([builders.deployment("web")])
    store.close()
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    code, out, _ = shell("rollout", "status", "deployment", "web", "--no-watch", "-i", "hosts.ini")
    assert (code, out.splitlines()[0]) == (0, "deployment web: 0 of 3 replicas are available")


_SILENT = Missing(builders.moment(), builders.moment(60), 7, "unreachable", "no route to host")


def _asked_meanwhile(full: Shell, monkeypatch: pytest.MonkeyPatch, missing: Missing | None) -> tuple[int, str, str]:
    """`node confirm-dead`, with a pass that notes something of the node before the person has answered."""
    store = full.store()
    store.edit([replace(store.load().nodes["node1"], missing=_SILENT)])

    def ask(*_: object) -> None:
        store.edit([replace(store.load().nodes["node1"], missing=missing)])

    monkeypatch.setattr("controller.cli.hosts.confirm", ask)
    said = full("node", "confirm-dead", "node1", "--wiped")
    dead = store.load().nodes["node1"].confirmed_dead
    store.close()
    assert dead == ("" if said[0] else "wiped")
    return said


def test_a_node_that_stays_silent_while_a_person_is_asked_is_confirmed_dead(
    full: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watching controller writes down its silence again and again."""
    code, out, err = _asked_meanwhile(full, monkeypatch, replace(_SILENT, latest=builders.moment(70), polls=8))
    assert (code, err) == (0, "")
    assert "node/node1 confirmed dead" in out


def test_a_node_that_answers_while_a_person_is_asked_is_not_confirmed_dead(
    full: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = _asked_meanwhile(full, monkeypatch, None)
    assert code == 2
    assert "node1 answered when it was last asked: it is not dead" in err


def test_only_a_host_of_the_inventory_is_taken_over(shell: Shell) -> None:
    (shell.home / "hosts.ini").write_text("node1 ansible_host=192.0.2.1\n")
    code, _, told = shell("node", "takeover", "node2", "--yes", "-i", "hosts.ini")
    assert (code, "there is no host 'node2' in the inventory" in told) == (2, True)


def test_a_namespace_is_created_once(full: Shell) -> None:
    assert full("create", "namespace", "blue")[1] == "namespace/blue created\n"
    assert full("create", "namespace", "blue")[1] == "namespace/blue unchanged\n"


# ---- inventory ----


def test_an_inventory_that_is_a_program_is_run_only_when_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shell.home / "hosts.sh"
    program.write_text('#!/bin/sh\necho \'{"web": {"hosts": ["a"]}, "_meta": {"hostvars": {}}}\'\n')
    program.chmod(0o755)
    code, _, err = shell("inventory", "graph", "-i", str(program))
    assert code == 2 and "--allow-executable-inventory" in err
    assert "|--a" in shell("inventory", "graph", "-i", str(program), "--allow-executable-inventory")[1]
    monkeypatch.setenv("SSHOAL_ALLOW_EXECUTABLE_INVENTORY", "1")
    assert "|--a" in shell("inventory", "graph", "-i", str(program))[1]


def test_init_refuses_to_overwrite_another_inventory(shell: Shell) -> None:
    (shell.home / "hosts.ini").write_text("[mine]\na\n")
    code, _, err = shell("init", "root@192.0.2.1")
    assert code == 2 and "says something else" in err
    assert (shell.home / "hosts.ini").read_text() == "[mine]\na\n"


# ---- why and what if -------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent(shell: Shell) -> Shell:
    """The only host has a closed port: what is asked of it is told as not known."""
    store = shell.store()
    store.edit([builders.deployment("web"), builders.bare_pod("lonely"), builders.node("node1")])
    store.close()
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1 ansible_user=root\n")
    return shell


def test_explain_tells_each_nodes_verdict_and_that_a_host_was_not_seen(silent: Shell) -> None:
    code, out, err = silent("explain", "pod/lonely", "-i", "hosts.ini")
    assert code == 4
    assert out.splitlines()[0] == "pod default/lonely has no node"
    assert "NodeReady: Unseen" in out
    assert "note: node1 gives no report" in err
    code, out, _ = silent("explain", "lonely", "-i", "hosts.ini", "-o", "json")
    assert (code, json.loads(out)["nodes"][0]["fits"]) == (4, False)


def test_hosts_that_are_no_nodes_are_not_asked(silent: Shell) -> None:
    """Ansible's inventories have this machine, jump hosts and network devices too."""
    with (silent.home / "hosts.ini").open("a") as file:
        file.write("localhost ansible_connection=local\n[jump]\nbastion sshoal_node=no\n")
    code, out, err = silent("plan", "-i", "hosts.ini")
    assert code == 0
    assert "node1" in out + err
    assert "localhost" not in out + err
    assert "bastion" not in out + err
    code, _, err = silent("node", "check", "jump", "-i", "hosts.ini")
    assert (code, "no host that 'jump' matches is a node" in err) == (2, True)


def test_explain_is_about_pods_that_exist(silent: Shell) -> None:
    assert silent("explain", "deployment/web", "-i", "hosts.ini")[0] == 2
    code, _, err = silent("explain", "deployment.spec.replicas", "-i", "hosts.ini")
    assert code == 2 and "not what fields mean" in err and "docs/manifest.md" in err
    assert "pod default/lonely has no node" in silent("explain", "pod", "lonely", "-i", "hosts.ini")[1]
    code, _, err = silent("explain", "pod/nobody", "-i", "hosts.ini")
    assert code != 0
    assert err.splitlines()[0] == 'error: pod "nobody" not found in namespace default'


@pytest.mark.parametrize(
    "condition", ["available", "condition=Available", "condition=available=true", "condition=Available=True"]
)
def test_wait_takes_conditions_as_kubectl_writes_them(silent: Shell, condition: str) -> None:
    code, _, err = silent("wait", "deployment/web", f"--for={condition}", "--timeout", "0.1s", "-i", "hosts.ini")
    assert (code, "0 of 3 replicas are available" in err) == (3, True), err


def test_options_of_exec_may_follow_the_pod_as_kubectl_takes_them(silent: Shell) -> None:
    code, _, err = silent("exec", "nobody", "-n", "staging", "-c", "main", "--", "ls", "-n", "other")
    assert (code, err.splitlines()[0]) == (2, 'error: pod "nobody" not found in namespace staging')


@pytest.mark.parametrize(
    "words", ["wait deployment/web", "wait pod/lonely --for delete", "rollout status deployment/web"]
)
def test_what_is_not_there_at_once_is_an_error_also_without_time_to_wait(silent: Shell, words: str) -> None:
    code, _, err = silent(*words.split(), "--timeout", "0", "-i", "hosts.ini")
    assert (code, "error: " in err) == (3, True), err


def test_what_is_named_twice_is_deleted_once(silent: Shell) -> None:
    code, out, err = silent("delete", "pod/lonely", "pod/lonely", "--no-wait", "-i", "hosts.ini")
    assert (code, out) == (0, "pod/lonely deleted\n"), err


def test_simulate_ends_with_3_when_pods_would_run_nowhere(silent: Shell) -> None:
    code, out, err = silent("simulate", "--lose", "node1", "-i", "hosts.ini")
    assert code == 3
    assert "note: node1 gives no report" in err
    assert "! pod default/lonely would run nowhere" in out
    code, out, _ = silent("simulate", "--add", "4cpu,8Gi", "-i", "hosts.ini")
    assert "+ pod default/lonely would run on new-1" in out
    assert code == 4  # all would run, but a host could not be asked


def test_simulate_applies_manifests_without_declaring_them(silent: Shell) -> None:
    (silent.home / "new.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: fresh}\nspec: {containers: [{name: c, image: 'i:1'}]}\n"
    )
    code, out, _ = silent("simulate", "-f", "new.yaml", "--add", "1cpu,1Gi", "-i", "hosts.ini")
    assert (code, "+ pod default/fresh would run on new-1" in out) == (4, True)
    assert "fresh" not in silent("get", "pods", "--cached")[1]


def test_simulate_refuses_what_it_cannot_imagine(silent: Shell) -> None:
    assert silent("simulate", "--add", "big", "-i", "hosts.ini")[0] == 2
    assert silent("simulate", "--lose", "node9", "-i", "hosts.ini")[0] != 0


def test_rebalance_only_shows(silent: Shell) -> None:
    assert silent("rebalance", "-i", "hosts.ini")[0] == 2
    code, out, _ = silent("rebalance", "--plan", "-i", "hosts.ini")
    assert (code, out) == (4, "every pod is where it would be placed now\n")
