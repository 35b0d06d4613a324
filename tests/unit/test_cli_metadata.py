"""`label` and `annotate`: what is changed, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.cli.names import parse_target
from controller.decide.labels import edit_metadata, parse_edits
from controller.decide.verbs import find
from controller.model.cluster import Ref, World
from controller.model.errors import UsageError
from tests import builders
from tests.shell import Shell


def labels_of(shell: Shell, target: str, field: str = "labels") -> dict[str, str]:
    store = shell.store()
    records = store.load()
    store.close()
    tables = (records.declared, records.deployments, records.pods, records.nodes)
    kind, namespace, name = parse_target(target, "default")
    (found,) = [
        record
        for table in tables
        for record in table.values()
        if (record.meta.kind, record.meta.namespace, record.meta.name) == (kind, namespace, name)
    ]
    return dict(getattr(found.meta, field))


def test_labels_are_set_and_taken_away_in_one_go(full: Shell) -> None:
    assert full("label", "pod/lonely", "cm/settings", "team=shop", "app-")[:2] == (
        0,
        "pod/lonely labeled\nconfigmap/settings labeled\n",
    )
    assert labels_of(full, "pod/lonely") == {"team": "shop"}
    assert labels_of(full, "cm/settings") == {"team": "shop"}
    assert full("get", "pods", "-l", "team=shop", "-o", "name", "--cached")[1] == "pod/lonely\n"


def test_what_is_so_already_is_unchanged(full: Shell) -> None:
    full("label", "pod", "lonely", "team=shop")
    assert full("label", "pod", "lonely", "team=shop", "nothere-")[1] == "pod/lonely unchanged\n"


def test_another_value_needs_overwrite(full: Shell) -> None:
    code, _, err = full("label", "pod/lonely", "cm/settings", "app=other")
    assert (code, "has app='web' already" in err, "--overwrite" in err) == (2, True, True)
    assert labels_of(full, "cm/settings") == {}, "one refusal refuses all"
    assert full("label", "pod/lonely", "app=other", "--overwrite")[0] == 0
    assert labels_of(full, "pod/lonely") == {"app": "other"}


def test_an_annotation_may_hold_any_text(full: Shell) -> None:
    assert full("annotate", "deploy/web", "example.org/why=a = b, c!")[1] == "deployment.apps/web annotated\n"
    assert labels_of(full, "deploy/web", "annotations") == {"example.org/why": "a = b, c!"}
    assert full("annotate", "node/node1", "rack=7")[0] == 0
    assert "rack=7" in full("annotate", "node/node1", "--list")[1]


def test_list_shows_what_a_node_has_from_the_inventory(full: Shell) -> None:
    assert "kubernetes.io/hostname=node1" in full("label", "node/node1", "--list")[1]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        pytest.param(["node/node1", "disk=ssd"], "come from the inventory", "node_labels", id="label of a node"),
        pytest.param(["pod/lonely", "a=b", "a-"], "a is named twice", "", id="twice"),
        pytest.param(["pod/lonely", "a=b c"], "value", "key=value", id="no label value"),
        pytest.param(["pod/lonely", "-a=b"], "no such option", "--help", id="looks like an option"),
        pytest.param(["pod/lonely", "a/b/c=d"], "DNS name", "", id="no key"),
        pytest.param(["pod/lonely"], "which labels?", "key=value", id="nothing to do"),
        pytest.param(["a=b"], "which object", "deployment/web", id="no object"),
        pytest.param(["pod/nothere", "a=b"], "not found", "", id="no such object"),
    ],
)
def test_wrong_requests_are_refused(full: Shell, words: list[str], message: str, hint: str) -> None:
    code, out, err = full("label", *words)
    assert (code, out) == (2, "")
    assert message in err and hint in err


def test_an_object_that_a_controller_made_is_refused() -> None:
    pod = builders.bare_pod("web-1")
    owned = replace(pod, meta=replace(pod.meta, owner=Ref("ReplicaSet", "web", "uid")))
    with pytest.raises(UsageError, match="belongs to replicaset/web"):
        edit_metadata(owned, "labels", {"a": "b"}, overwrite=True)


def test_annotations_have_a_bound() -> None:
    with pytest.raises(UsageError, match="262144 bytes"):
        edit_metadata(builders.bare_pod(), "annotations", {"a": "x" * 262144}, overwrite=False)


def test_metadata_makes_no_new_generation_and_no_rollout() -> None:
    before = builders.deployment("web")
    (change,) = edit_metadata(before, "labels", parse_edits(["team=shop"], "labels"), overwrite=False)
    world: World = builders.world(change.record)
    after = find(world, "Deployment", "default", "web")
    assert replace(after, meta=before.meta) == before
    assert after.meta.generation == before.meta.generation


def test_a_namespace_that_is_always_there_is_seen_and_can_be_labelled(full: Shell) -> None:
    assert full("get", "ns", "-o", "name", "--cached")[1] == "namespace/default\nnamespace/staging\n"
    assert full("describe", "ns", "default", "--cached")[0] == 0
    strict = "pod-security.kubernetes.io/enforce=restricted"
    assert full("label", "ns", "default", strict)[:2] == (0, "namespace/default labeled\n")
    assert full("label", "ns", "kube-system", "team=ops")[0] == 0
    assert labels_of(full, "ns/default") == dict([strict.split("=")])
    assert full("get", "ns", "-o", "name", "--cached")[1].split() == [
        *("namespace/default", "namespace/kube-system", "namespace/staging")
    ]
    code, _, err = full("delete", "ns/default", "--no-wait")
    assert (code, "cannot be deleted" in err) == (2, True)


def test_before_anything_is_declared_there_is_a_namespace_all_the_same(shell: Shell) -> None:
    shell.store().close()
    _, out, _ = shell("get", "ns", "--no-headers", "--cached")
    assert out.split() == ["default", "Active", "<unknown>"]
