"""Objects that a selector chooses, or all of a kind: what commands then do, what they refuse, and what they say when there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from controller.cli.logs import Wanted
from controller.cli.targets import parse_chosen
from controller.model.cluster import Pod, Record, Ref
from tests import builders
from tests.shell import Shell

FOUND_NONE = "No resources found\n"


def labelled(record: Record, namespace: str = "default", **labels: str) -> Record:
    return replace(record, meta=replace(record.meta, namespace=namespace, labels=labels))


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """Two namespaces with what a selector may choose; the only host has a closed port."""
    other = labelled(builders.bare_pod("elsewhere"), "staging", app="web")
    records = [
        labelled(builders.deployment("web", replicas=0), app="web"),
        labelled(builders.config_map("settings", {}), app="web", tier="front"),
        labelled(builders.config_map("rest", {}), app="db"),
        builders.bare_pod("one"),
        builders.bare_pod("two"),
        replace(other, meta=replace(other.meta, uid="elsewhere")),
        builders.namespace("staging"),
        builders.node("node1"),
    ]
    store = shell.store()
    store.edit(records)
    store.close()
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1 ansible_user=root\n")
    return shell


def left(shell: Shell) -> set[str]:
    """Of what may be deleted in these tests: what is neither gone nor on its way."""
    store = shell.store()
    world = store.load()
    store.close()
    tables = (world.declared, world.deployments, world.pods)
    records: list[Record] = [record for table in tables for record in table.values()]
    return {
        record.meta.name
        for record in records
        if record.meta.deleting is None and not (isinstance(record, Pod) and record.stop is not None)
    }


EVERYTHING = {"web", "settings", "rest", "one", "two", "elsewhere", "staging"}

# ---- delete ----


@pytest.mark.parametrize(
    ("words", "gone", "told"),
    [
        ("deploy,cm -l app=web", {"web", "settings"}, "deployment.apps/web deleted\nconfigmap/settings deleted\n"),
        ("cm -l app=web,tier!=front", set(), None),
        ("cm -l=app=db", {"rest"}, "configmap/rest deleted\n"),
        ("cm --selector=app", {"settings", "rest"}, "configmap/rest deleted\nconfigmap/settings deleted\n"),
        ("pods --all", {"one", "two"}, "pod/one deleted\npod/two deleted\n"),
        ("pods --all -n staging", {"elsewhere"}, "pod/elsewhere deleted\n"),
        ("jobs --all", set(), None),
        ("ns --all", {"staging", "elsewhere"}, "namespace/staging deleted\n"),
        (
            "deploy,cm settings web --ignore-not-found",
            {"web", "settings"},
            "deployment.apps/web deleted\nconfigmap/settings deleted\n",
        ),
        (
            "po,cm -A -l app=web",
            {"one", "two", "elsewhere", "settings"},
            "".join(f"pod/{name} deleted from namespace default\n" for name in ("one", "two"))
            + "pod/elsewhere deleted from namespace staging\nconfigmap/settings deleted from namespace default\n",
        ),
        ("ns -A --all", {"staging", "elsewhere"}, "namespace/staging deleted\n"),
    ],
)
def test_delete_takes_what_is_chosen_and_nothing_else(
    shop: Shell, words: str, gone: set[str], told: str | None
) -> None:
    code, out, err = shop("delete", *words.split(), "--no-wait", "-i", "hosts.ini")
    assert code == 0, err
    assert out == (told or "")
    assert told is not None or err == FOUND_NONE
    assert left(shop) == EVERYTHING - gone


def test_all_is_workloads_and_their_pods_and_one_change_to_each(shop: Shell) -> None:
    code, out, err = shop("delete", "all", "--all", "--grace-period", "0", "--no-wait", "-i", "hosts.ini")
    assert (code, out) == (0, "pod/one deleted\npod/two deleted\ndeployment.apps/web deleted\n"), err
    assert left(shop) == EVERYTHING - {"one", "two", "web"}


def test_a_pod_that_is_deleted_with_its_owner_and_by_itself_is_changed_once(shop: Shell) -> None:
    owner = builders.replica_set("set")
    pod = builders.bare_pod("set-1")
    owned = replace(pod, meta=replace(pod.meta, owner=Ref("ReplicaSet", "set", owner.meta.uid)))
    store = shop.store()
    store.edit([owner, owned])
    store.close()
    code, out, err = shop("delete", "rs,po", "--all", "--grace-period", "0", "--no-wait", "-i", "hosts.ini")
    assert code == 0 and "pod/set-1 deleted\n" in out and "replicaset.apps/set deleted\n" in out, err
    assert not {"set", "set-1"} & left(shop)


# What is not clear, whatever the command.
CHOICES = [
    pytest.param("pods one --all", "name cannot be provided when --all is specified", "only kinds", id="name and all"),
    pytest.param("pod/one -l app=web", "name cannot be provided when a selector", "only kinds", id="name and selector"),
    pytest.param("pods --all -l app=web", "--all is set, but there is a selector too", "choose one", id="both"),
    pytest.param("-l app=web", "at least one resource must be specified to use a selector", "pods", id="no kind"),
    pytest.param("--all", "at least one resource must be specified to use --all", "pods", id="all of nothing"),
    pytest.param("pods -l|", "-l is given an empty selector", "unset?", id="empty selector"),
    pytest.param("pods -l| ", "-l is given an empty selector", "unset?", id="blank selector"),
    pytest.param("pods -l a=b=c", "is not a label selector", "app=web", id="no selector"),
    pytest.param("pods,podz --all", "knows no kind 'podz'", "did you mean", id="misspelt kind"),
    pytest.param(", --all", "',' names no kind", "deploy,cm", id="no kind at all"),
    pytest.param("events --all", "events are only shown", "sshoal events", id="events"),
    pytest.param("pods", "'pods': which one?", "-l LABELS or --all", id="kind alone"),
]


@pytest.mark.parametrize(("words", "message", "hint"), CHOICES)
def test_what_is_not_clear_deletes_nothing(shop: Shell, words: str, message: str, hint: str) -> None:
    plain, *selector = words.split("|")
    code, out, err = shop("delete", *plain.split(), *selector, "-i", "hosts.ini")
    assert (code, out) == (2, "")
    assert message in err and hint in err
    assert left(shop) == EVERYTHING


@pytest.mark.parametrize("choice", [("cm", "--all"), ("cm", "-l", "app")], ids=" ".join)
def test_a_file_names_objects_and_is_not_chosen_from(shop: Shell, choice: tuple[str, ...]) -> None:
    (shop.home / "rest.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: rest}\n")
    code, _, err = shop("delete", "-f", "rest.yaml", *choice, "-i", "hosts.ini")
    assert code == 2 and "it goes with neither -l nor --all" in err
    assert left(shop) == EVERYTHING
    code, out, _ = shop("delete", "cm/settings", "-f", "rest.yaml", "--no-wait", "-i", "hosts.ini")
    assert (code, out) == (0, "configmap/settings deleted\nconfigmap/rest deleted\n")


@pytest.mark.parametrize(
    ("kind", "message"), [("nodes", "a node is not deleted"), ("ns", "namespace default cannot be deleted")]
)
def test_what_cannot_be_deleted_by_name_cannot_be_among_all(shop: Shell, kind: str, message: str) -> None:
    store = shop.store()
    store.edit([builders.namespace("default")])
    store.close()
    code, out, err = shop("delete", kind, "--all", "-i", "hosts.ini")
    assert (code, out, message in err) == (2, "", True)
    assert left(shop) == {*EVERYTHING, "default"}


def test_a_nodes_labels_are_those_of_its_inventory_too() -> None:
    world = builders.world(builders.node("node1"), builders.node("node2", 2))
    chosen = parse_chosen(["nodes"], "default", "kubernetes.io/hostname=node2", False)
    assert [record.meta.name for record in chosen.records(world)] == ["node2"]


# ---- logs ----


@pytest.fixture
def running(shop: Shell) -> Shell:
    """`shop` with its pods on the node, but for one that has none yet; and one that was lost with its node."""
    store = shop.store()
    pods = {pod.meta.name: replace(pod, node="node1", bound=builders.moment(1)) for pod in store.load().pods.values()}
    lost = replace(builders.bare_pod("lost"), node="node1", bound=builders.moment(1), lost=builders.moment(2))
    store.edit([*pods.values(), builders.bare_pod("waiting"), lost])
    store.close()
    return shop


class Shown:
    """In place of show_logs: remembers what it is asked for."""

    def __init__(self) -> None:
        self.pods: list[str] = []
        self.successors: list[str] = []
        self.tail = 0

    async def __call__(
        self, _: Any, pods: Sequence[Pod], wanted: Wanted, pods_now: Callable[[], Sequence[Pod]]
    ) -> bool:
        self.pods = [pod.meta.name for pod in pods]
        self.successors = [pod.meta.name for pod in pods_now()]
        self.tail = wanted.tail
        return False


@pytest.mark.parametrize(
    ("words", "pods", "tail"),
    [
        ("-l app=web", ["one", "two"], 10),
        ("-l app=web -f", ["one", "two"], 10),
        ("-l app=web --tail 3", ["one", "two"], 3),
        ("-l app=web --tail=-1", ["one", "two"], -1),
        ("-l app -n staging", ["elsewhere"], 10),
        ("one", ["one"], -1),
        ("pod/one --tail 3", ["one"], 3),
    ],
)
def test_logs_of_a_selector_are_of_all_pods_on_nodes_that_match(
    running: Shell, monkeypatch: pytest.MonkeyPatch, words: str, pods: list[str], tail: int
) -> None:
    shown = Shown()
    monkeypatch.setattr("controller.cli.logs.show_logs", shown)
    assert running("logs", *words.split(), "-i", "hosts.ini")[0] == 0
    assert (shown.pods, shown.successors, shown.tail) == (pods, pods, tail)


def test_logs_of_a_selector_tell_of_each_pod_that_cannot_be_asked(running: Shell) -> None:
    code, out, err = running("logs", "-l", "app=web", "-i", "hosts.ini")
    assert (code, out) == (4, "")
    assert "note: one: node1" in err and "note: two: node1" in err


def test_logs_of_all_containers_tell_of_each_that_cannot_be_had(running: Shell) -> None:
    code, out, err = running("logs", "-l", "app=web", "--all-containers", "-i", "hosts.ini")
    assert (code, out) == (4, "")
    assert "note: one/main: node1" in err and "note: two/main: node1" in err


def test_logs_of_a_selector_that_chooses_none_say_so(running: Shell) -> None:
    assert running("logs", "-l", "app=nothing", "-i", "hosts.ini") == (0, "", FOUND_NONE)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        pytest.param(["one", "-l", "app=web"], "only a selector (-l) or a POD name is allowed", "-l", id="both"),
        pytest.param([], "POD or KIND/NAME is missing", "deployment/web", id="neither"),
        pytest.param(["one", "--all-containers", "-c", "c"], "contradict each other", "one of them", id="all and one"),
        pytest.param(["-l", ""], "-l is given an empty selector", "unset?", id="empty"),
        pytest.param(["-l", "a=b=c"], "is not a label selector", "app=web", id="no selector"),
    ],
)
def test_it_must_be_clear_whose_logs_are_wanted(running: Shell, words: list[str], message: str, hint: str) -> None:
    code, out, err = running("logs", *words, "-i", "hosts.ini")
    assert (code, out) == (2, "")
    assert message in err and hint in err


def test_pods_that_are_chosen_and_are_on_no_node_have_no_logs(shop: Shell) -> None:
    code, _, err = shop("logs", "-l", "app=web", "-i", "hosts.ini")
    assert code == 2 and "no pods on nodes" in err


# ---- label, annotate ----


def labels_of(shell: Shell, field: str = "labels") -> dict[str, dict[str, str]]:
    store = shell.store()
    world = store.load()
    store.close()
    return {record.meta.name: dict(getattr(record.meta, field)) for record in world.declared.values()}


def test_label_changes_all_that_match_in_one_transaction(shop: Shell) -> None:
    code, out, _ = shop("label", "deploy,cm", "-l", "app=web", "team=shop", "tier-")
    assert (code, out) == (0, "deployment.apps/web labeled\nconfigmap/settings labeled\n")
    assert labels_of(shop)["settings"] == {"app": "web", "team": "shop"}
    assert labels_of(shop)["rest"] == {"app": "db"}
    code, out, err = shop("label", "cm", "--all", "app=web")
    assert (code, out, "configmap default/rest has app='db' already" in err) == (2, "", True)
    assert (
        shop("label", "cm", "--all", "app=web", "--overwrite")[1]
        == "configmap/rest labeled\nconfigmap/settings unchanged\n"
    )


def test_annotate_and_list_take_all_of_a_kind(shop: Shell) -> None:
    assert shop("annotate", "cm", "--all", "why=so")[1] == "configmap/rest annotated\nconfigmap/settings annotated\n"
    assert labels_of(shop, "annotations")["rest"] == {"why": "so"}
    assert shop("label", "cm", "-l", "tier", "--list")[1] == "app=web\ntier=front\n"
    listed = (
        "Listing labels for configmap/rest:\n app=db\nListing labels for configmap/settings:\n app=web\n tier=front\n"
    )
    assert shop("label", "cm", "--all", "--list")[1] == listed


@pytest.mark.parametrize(
    "words", ["label cm -l app=nothing a=b", "annotate jobs --all a=b", "label cm --all -n nowhere --list"]
)
def test_where_nothing_is_chosen_that_is_said(shop: Shell, words: str) -> None:
    before = labels_of(shop)
    assert shop(*words.split()) == (0, "", FOUND_NONE)
    assert labels_of(shop) == before


@pytest.mark.parametrize("command", ["label", "annotate"])
@pytest.mark.parametrize(("words", "message", "hint"), CHOICES)
def test_what_is_not_clear_changes_nothing(shop: Shell, command: str, words: str, message: str, hint: str) -> None:
    plain, *selector = words.split("|")
    before = labels_of(shop), labels_of(shop, "annotations")
    code, out, err = shop(command, *plain.split(), *selector, "a=b")
    assert (code, out) == (2, "")
    assert message in err and hint in err
    assert (labels_of(shop), labels_of(shop, "annotations")) == before


# ---- describe, get ----


def test_describe_tells_of_those_that_match(shop: Shell) -> None:
    code, out, _ = shop("describe", "cm", "-l", "app=web", "--cached")
    assert code == 0 and "settings" in out and "rest" not in out
    code, out, err = shop("describe", "cm", "-l", "app=nothing", "--cached")
    assert (code, out, err) == (0, "", "no configmaps found\n")


@pytest.mark.parametrize("command", ["describe", "get"])
def test_a_selector_does_not_go_with_names(shop: Shell, command: str) -> None:
    code, out, err = shop(command, "cm", "settings", "-l", "app=web", "--cached")
    assert (code, out) == (2, "")
    assert "name cannot be provided when a selector is specified" in err


def test_an_empty_selector_describes_nothing(shop: Shell) -> None:
    code, out, err = shop("describe", "cm", "-l", "", "--cached")
    assert (code, out) == (2, "") and "-l is given an empty selector" in err


def test_hosts_that_are_no_nodes_have_no_labels(shop: Shell) -> None:
    (shop.home / "hosts.ini").write_text("new ansible_host=127.0.0.1 ansible_port=1\n")
    assert "new" in shop("get", "nodes", "-i", "hosts.ini")[1]
    assert "new" not in shop("get", "nodes", "-i", "hosts.ini", "-l", "disk=ssd")[1]
    assert "new" in shop("get", "nodes", "-i", "hosts.ini", "-l", "!disk")[1]


# ---- wait ----


def test_wait_is_for_all_that_match(shop: Shell) -> None:
    code, _, err = shop("wait", "pods", "-l", "app=web", "--timeout", "0", "-i", "hosts.ini")
    assert code == 3 and "pod one" in err and "pod two" in err and "elsewhere" not in err
    code, _, err = shop(
        "wait", "pods", "--all", "-n", "staging", "--for", "delete", "--timeout", "0", "-i", "hosts.ini"
    )
    assert (code, "still there: pod elsewhere" in err) == (3, True)
    code, out, err = shop("wait", "cm,deploy", "--all", "--timeout", "5s", "-i", "hosts.ini")
    assert code == 0, err
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ("{.status.phase}=Pending", 0, "pod one: {.status.phase} is Pending"),
        (".status.phase=Pending", 0, ""),
        ("{.metadata.labels}", 0, ""),
        ("{.status.phase}=Running", 3, "pod one: {.status.phase} is Pending"),
        ("{.status.podIP}", 3, "pod one: {.status.podIP} is not there"),
        ('{.spec.containers[?(@.name=="other")].image}', 3, "not there"),
        ('{.spec.containers[?(@.name=="main")].image}=web:1', 0, ""),
        ("{.status.phase}=", 2, "jsonpath wait value cannot be empty"),
        ("{.status.phase", 2, "no single JSONPath"),
    ],
)
def test_wait_is_for_a_value_of_a_field(shop: Shell, path: str, code: int, told: str) -> None:
    words = ("wait", "pod/one", f"--for=jsonpath={path}", "--timeout", "0", "-i", "hosts.ini")
    ended, out, err = shop(*words)
    assert (ended, told in out + err) == (code, True), out + err


def test_wait_for_none_is_an_error_unless_they_shall_be_gone(shop: Shell) -> None:
    code, _, err = shop("wait", "pods", "-l", "app=nothing", "-i", "hosts.ini")
    assert (code, err) == (2, "error: no matching resources found\n")
    assert shop("wait", "pods", "-l", "app=nothing", "--for", "delete", "-i", "hosts.ini")[0] == 0


@pytest.mark.parametrize(
    ("words", "message", "hint"), [one for one in CHOICES if "at least one" not in str(one.values[1])]
)
def test_it_must_be_clear_what_is_waited_for(shop: Shell, words: str, message: str, hint: str) -> None:
    plain, *selector = words.split("|")
    code, out, err = shop("wait", *plain.split(), *selector, "-i", "hosts.ini")
    assert (code, out) == (2, "")
    assert message in err and hint in err
