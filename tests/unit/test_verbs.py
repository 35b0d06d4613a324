"""What users ask for and what becomes of it: apply, scale, undo, pause, restart, delete, cordon."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.decide import verbs
from controller.model import manifest
from controller.model.cluster import Declared, Deployment, Pod, Record, Ref, ReplicaSet, Stop, World
from controller.model.errors import ManifestError, NotFound, UsageError
from controller.model.identity import template_hash
from controller.model.plan import changed
from tests.builders import (
    bare_pod,
    config_map,
    deployment,
    edited,
    meta,
    moment,
    namespace,
    node,
    replica_set,
    secret,
    template,
    world,
)

NOW = moment(100.0)


def hash_of(values: Mapping[str, str]) -> str:
    return "hash-of-" + ",".join(f"{key}={value}" for key, value in sorted(values.items()))


def apply(before: World, text: str) -> tuple[verbs.Applied, ...]:
    return verbs.apply(before, manifest.load(text, "app.yaml").manifests, hash_of, NOW)


def applied(before: World, text: str) -> World:
    """The world after."""
    return changed(before, [one.change for one in apply(before, text) if one.change is not None])


def only(before: World, text: str) -> verbs.Applied:
    (one,) = apply(before, text)
    return one


def web(image: str = "web:1", replicas: int | None = 3, labels: str = "", **fields: Any) -> str:
    spec = {"replicas": replicas, **fields}
    lines = "\n".join(f"  {key}: {value}" for key, value in spec.items() if value is not None)
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{{labels}}}}}
spec:
{lines}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: main, image: "{image}"}}]}}
"""


def config(data: str, extra: str = "") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\n{extra}\ndata: {{{data}}}\n"


# ---- apply --------------------------------------------------------------------------------------------------------------


def test_a_new_object_is_created_with_a_uid_and_the_place_where_it_was_declared() -> None:
    one = only(world(), web())
    assert (one.kind, one.namespace, one.name, one.outcome) == ("Deployment", "default", "web", "created")
    assert one.change is not None
    assert one.change.record.meta.generation == 1
    assert "app.yaml:1" in one.change.because


def test_an_object_made_again_after_its_deletion_gets_another_uid() -> None:
    first = only(world(), web()).change
    later = only(replace(world(), counter=7), web()).change
    assert first is not None
    assert later is not None
    assert first.record.meta.uid != later.record.meta.uid


def test_the_same_manifest_again_changes_nothing() -> None:
    before = applied(world(), web())
    assert only(before, web()) == verbs.Applied("Deployment", "default", "web", "unchanged", None)


def test_what_no_manifest_holds_any_more_stays() -> None:
    """A file that is gone or half empty is no order to delete: only `delete` is."""
    both = applied(world(), web() + "---\n" + web().replace("name: web", "name: api"))
    after = applied(both, web(image="web:2"))
    assert {one.meta.name for one in after.deployments.values()} == {"web", "api"}
    assert [one for one in after.deployments.values() if one.meta.name == "api"] == [
        one for one in both.deployments.values() if one.meta.name == "api"
    ]
    assert not [one.change for one in apply(both, web()) if one.change is not None]


@pytest.mark.parametrize(
    ("text", "generation"),
    [(web(image="web:2"), 2), (web(replicas=5), 2), (web(labels="team: a"), 1)],
    ids=["another image", "another number", "only a label of its own"],
)
def test_a_change_of_the_spec_is_a_new_generation_a_label_is_not(text: str, generation: int) -> None:
    one = only(applied(world(), web()), text)
    assert one.outcome == "configured"
    assert one.change is not None
    assert one.change.record.meta.generation == generation


def test_replicas_left_open_stay_as_they_are() -> None:
    """`scale` is not undone by a manifest that does not speak of replicas."""
    before = applied(world(), web(replicas=None))
    (record,) = before.deployments.values()
    before = changed(before, verbs.scale(before, record, 7))
    after = applied(before, web(image="web:2", replicas=None))
    (record,) = after.deployments.values()
    assert record.source["spec"]["replicas"] == 7
    assert record.source["spec"]["template"]["spec"]["containers"][0]["image"] == "web:2"


def test_replicas_that_the_manifest_names_win_over_scale() -> None:
    before = applied(world(), web(replicas=3))
    (record,) = before.deployments.values()
    before = changed(before, verbs.scale(before, record, 7))
    (record,) = applied(before, web(replicas=3)).deployments.values()
    assert record.source["spec"]["replicas"] == 3


def test_another_image_is_another_template_another_number_is_not() -> None:
    (before,) = applied(world(), web()).deployments.values()
    (more,) = applied(applied(world(), web()), web(replicas=9)).deployments.values()
    (newer,) = applied(applied(world(), web()), web(image="web:2")).deployments.values()
    assert before.template_hash == more.template_hash != newer.template_hash


def test_the_selector_of_a_deployment_is_immutable() -> None:
    before = applied(world(), web())
    other = web().replace("app: web", "app: other")
    with pytest.raises(ManifestError, match="cannot be changed once the deployment is there") as caught:
        apply(before, other)
    assert (caught.value.file, caught.value.line, caught.value.field) == ("app.yaml", 1, "spec.selector")


def test_the_spec_of_a_pod_is_immutable_its_labels_are_not() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: '%s'}}\nspec: {containers: [{name: c, image: '%s'}]}\n"
    before = applied(world(), text % ("1", "i:1"))
    assert only(before, text % ("2", "i:1")).outcome == "configured"
    with pytest.raises(ManifestError, match="spec of a pod cannot be changed"):
        apply(before, text % ("1", "i:2"))


def test_what_belongs_to_a_deployment_cannot_be_applied_over() -> None:
    owned = replica_set("web-abc")
    owned = replace(owned, meta=replace(owned.meta, owner=Ref("Deployment", "web", "u")))
    text = """\
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-abc}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: main, image: "web:1"}]}}
"""
    with pytest.raises(ManifestError, match="belongs to deployment web"):
        apply(world(owned), text)


def test_an_immutable_config_map_keeps_its_content() -> None:
    before = applied(world(), config("a: '1'", "immutable: true"))
    assert only(before, config("a: '1'", "immutable: true")).outcome == "unchanged"
    with pytest.raises(ManifestError, match="settings is immutable"):
        apply(before, config("a: '2'", "immutable: true"))


def test_the_hash_of_a_config_map_is_that_of_its_content() -> None:
    (first,) = applied(world(), config("a: '1'")).declared.values()
    (second,) = applied(applied(world(), config("a: '1'")), config("a: '2'")).declared.values()
    assert first.hash != second.hash


def test_the_type_of_a_secret_stays() -> None:
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nTYPE\nstringData: {k: v}\n"
    before = applied(world(), text.replace("TYPE", "type: example.com/x"))
    assert only(before, text.replace("TYPE", "type: example.com/x")).outcome == "unchanged"
    with pytest.raises(ManifestError, match="type of a secret cannot be changed"):
        apply(before, text.replace("TYPE", "type: Opaque"))
    plain = applied(world(), text.replace("TYPE", ""))
    assert only(plain, text.replace("TYPE", "type: Opaque")).outcome == "configured"


def test_a_secrets_record_holds_the_names_of_its_values_only() -> None:
    """stringData wins over data, as in Kubernetes."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\ndata: {a: Zmlyc3Q=, b: Zmlyc3Q=}\nstringData: {a: canary}\n"
    (record,) = applied(world(), text).declared.values()
    assert record.source["data"] == {"a": "", "b": ""}
    assert "canary" not in repr(record.source)
    assert record.hash == hash_of({"a": base64.b64encode(b"canary").decode(), "b": "Zmlyc3Q="})


def test_a_namespace_must_exist_or_be_declared_beside() -> None:
    there = web().replace("metadata: {name: web, labels: {}}", "metadata: {name: web, namespace: shop}")
    with pytest.raises(ManifestError, match="namespace 'shop' does not exist") as caught:
        apply(world(), there)
    assert caught.value.hint == "sshoal create namespace shop"
    assert only(world(namespace("shop")), there).outcome == "created"
    both = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n{there}"
    assert [one.outcome for one in apply(world(), both)] == ["created", "created"]


def test_one_object_declared_in_two_files_is_an_error_that_names_both_places() -> None:
    twice = [*manifest.load(web(), "a.yaml").manifests, *manifest.load(web(), "b.yaml").manifests]
    with pytest.raises(ManifestError, match=r"declared at a\.yaml:1") as caught:
        verbs.apply(world(), twice, hash_of, NOW)
    assert caught.value.file == "b.yaml"


def test_an_object_that_is_being_deleted_is_not_configured() -> None:
    before = applied(world(), web())
    (record,) = before.deployments.values()
    before = changed(before, verbs.delete(before, record, NOW))
    with pytest.raises(ManifestError, match="is being deleted"):
        apply(before, web(replicas=9))


def test_all_problems_are_told_at_once_and_nothing_is_applied() -> None:
    before = applied(world(), f"{web()}---\n{config('a: 1', 'immutable: true').replace('a: 1', 'a: x')}")
    bad = f"{web().replace('app: web', 'app: other')}---\n{config('a: y', 'immutable: true')}"
    with pytest.raises(ManifestError) as caught:
        apply(before, bad)
    assert "selector" in str(caught.value)
    assert "immutable" in str(caught.value)


# ---- scale, pause, restart, undo ----------------------------------------------------------------------------------------


def test_scaling_sets_the_number_and_a_new_generation() -> None:
    web_ = deployment("web", 3)
    (change,) = verbs.scale(world(web_), web_, 5)
    assert isinstance(change.record, Deployment)
    assert change.record.source["spec"]["replicas"] == 5
    assert change.record.meta.generation == web_.meta.generation + 1
    assert change.record.template_hash == web_.template_hash


def test_scaling_to_the_present_number_changes_nothing() -> None:
    web_ = deployment("web", 3)
    assert verbs.scale(world(web_), web_, 3) == ()
    bare = replica_set(replicas=2)
    assert verbs.scale(world(bare), bare, 2) == ()


@pytest.mark.parametrize("replicas", [-1, 100_001])
def test_a_slip_of_the_finger_is_no_number_of_replicas(replicas: int) -> None:
    web_ = deployment("web", 3)
    with pytest.raises(UsageError, match="replicas must be"):
        verbs.scale(world(web_), web_, replicas)


def test_a_replica_set_of_its_own_can_be_scaled_one_of_a_deployment_cannot() -> None:
    bare = replica_set(replicas=2)
    (change,) = verbs.scale(world(bare), bare, 4)
    assert isinstance(change.record, ReplicaSet)
    assert change.record.replicas == 4
    owned = replace(bare, meta=replace(bare.meta, owner=Ref("Deployment", "web", "u")))
    with pytest.raises(UsageError, match="belongs to deployment web") as caught:
        verbs.scale(world(owned), owned, 4)
    assert caught.value.hint == "sshoal scale deployment/web"


@pytest.mark.parametrize(
    "record", [bare_pod(), node("n1"), config_map("settings", {})], ids=["Pod", "Node", "ConfigMap"]
)
def test_what_has_no_replicas_cannot_be_scaled(record: Record) -> None:
    with pytest.raises(UsageError, match="no replicas to scale"):
        verbs.scale(world(record), record, 2)


def test_fewer_than_no_replicas_are_refused() -> None:
    web_ = deployment("web", 3)
    with pytest.raises(UsageError, match="0 or more"):
        verbs.scale(world(web_), web_, -1)


def test_a_rollout_that_was_paused_stays_so_until_a_manifest_says_otherwise() -> None:
    """As in Kubernetes, where the manifest never had it; what else it changes waits."""
    (web_,) = applied(world(), web()).deployments.values()
    before = changed(world(web_), verbs.pause(web_, True))
    assert only(before, web()).outcome == "unchanged"
    after = applied(before, web(image="web:2"))
    assert [_spec(one)["paused"] for one in after.deployments.values()] == [True]
    assert [_spec(one)["template"]["spec"]["containers"][0]["image"] for one in after.deployments.values()] == ["web:2"]
    resumed = applied(after, web(image="web:2", paused="false"))
    assert [_spec(one)["paused"] for one in resumed.deployments.values()] == [False]
    assert only(resumed, web(image="web:2", paused="true")).outcome == "configured"


def _spec(of: Deployment) -> Any:
    return of.source["spec"]


def test_pausing_and_resuming_take_turns() -> None:
    web_ = deployment("web", 3)
    (paused,) = verbs.pause(web_, True)
    assert isinstance(paused.record, Deployment)
    with pytest.raises(UsageError, match="already paused"):
        verbs.pause(paused.record, True)
    (resumed,) = verbs.pause(paused.record, False)
    assert isinstance(resumed.record, Deployment)
    assert not resumed.record.source["spec"]["paused"]
    with pytest.raises(UsageError, match="already resumed"):
        verbs.pause(web_, False)


def test_a_restart_is_a_new_template_with_the_time_in_an_annotation() -> None:
    web_ = deployment("web", 3)
    (change,) = verbs.restart(web_, "2026-01-01T00:00:00Z")
    assert isinstance(change.record, Deployment)
    annotations = change.record.source["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {verbs.RESTARTED_AT: "2026-01-01T00:00:00Z"}
    assert change.record.template_hash != web_.template_hash
    assert "annotations" not in web_.source["spec"]["template"]["metadata"]


def revision(of: Deployment, number: int, image: str, cause: str = "") -> ReplicaSet:
    written = template(image)
    owner = Ref("Deployment", of.meta.name, of.meta.uid)
    return ReplicaSet(
        meta("ReplicaSet", f"web-{number}", owner=owner),
        written,
        template_hash(written),
        0,
        revision=number,
        change_cause=cause,
    )


def test_undo_goes_to_the_newest_revision_with_another_template() -> None:
    web_ = deployment("web", 3, pods=template("web:3"))
    history = [revision(web_, 1, "web:1"), revision(web_, 2, "web:2", "second"), revision(web_, 3, "web:3")]
    (change,) = verbs.undo(world(web_, *history), web_)
    assert isinstance(change.record, Deployment)
    assert change.record.template_hash == history[1].template_hash
    assert change.record.meta.annotations[verbs.CHANGE_CAUSE] == "second"
    assert change.record.source["spec"]["replicas"] == 3


def test_undo_takes_the_revision_that_is_asked_for() -> None:
    web_ = deployment("web", 3, pods=template("web:3"))
    history = [revision(web_, 1, "web:1"), revision(web_, 2, "web:2"), revision(web_, 3, "web:3")]
    before = world(web_, *history)
    (change,) = verbs.undo(before, web_, 1)
    assert isinstance(change.record, Deployment)
    assert change.record.template_hash == history[0].template_hash
    assert verbs.undo(before, web_, 3) == ()


def test_undo_without_such_a_revision_lists_those_there_are() -> None:
    web_ = deployment("web", 3, pods=template("web:3"))
    before = world(web_, revision(web_, 3, "web:3"))
    with pytest.raises(NotFound, match=r"no revision 9 \(known: 3\)"):
        verbs.undo(before, web_, 9)
    with pytest.raises(NotFound, match="no earlier revision"):
        verbs.undo(before, web_)


def test_a_paused_deployment_is_neither_restarted_nor_rolled_back() -> None:
    paused = edited(deployment("web", 3), paused=True)
    with pytest.raises(UsageError, match="cannot be restarted") as caught:
        verbs.restart(paused, "now")
    assert caught.value.hint == "sshoal rollout resume deployment/web"
    with pytest.raises(UsageError, match="cannot be rolled back"):
        verbs.undo(world(paused), paused)


# ---- delete -------------------------------------------------------------------------------------------------------------


def test_a_pod_is_ordered_to_stop_and_its_record_stays() -> None:
    pod = bare_pod()
    (change,) = verbs.delete(world(pod), pod, NOW, grace_s=3)
    assert change.verb == "stop"
    assert isinstance(change.record, Pod)
    assert change.record.stop == Stop("pod default/lonely was deleted", NOW, 3)


@pytest.mark.parametrize(
    ("before", "again", "after"), [(600, 0, 0), (600, None, 600), (600, 700, 600), (600, 600, 600), (None, 0, 0)]
)
def test_deleting_a_pod_again_shortens_its_grace_and_never_makes_it_longer(
    before: int | None, again: int | None, after: int | None
) -> None:
    pod = replace(bare_pod(), stop=Stop("before", NOW, before))
    changes = verbs.delete(world(pod), pod, moment(5), grace_s=again)
    stopped = [change.record for change in changes] or [pod]
    assert [one.stop for one in stopped if isinstance(one, Pod)] == [Stop("before", NOW, after)]
    assert bool(changes) == (before != after)


def test_deleting_again_changes_nothing() -> None:
    pod = replace(bare_pod(), stop=Stop("before", NOW))
    assert verbs.delete(world(pod), pod, NOW) == ()
    web_ = deployment("web", 3)
    web_ = replace(web_, meta=replace(web_.meta, deleting=NOW))
    assert verbs.delete(world(web_), web_, NOW) == ()


@pytest.mark.parametrize("record", [config_map("settings", {}), secret("login", "h")], ids=["ConfigMap", "Secret"])
def test_content_goes_at_once(record: Declared) -> None:
    (change,) = verbs.delete(world(record), record, NOW)
    assert (change.verb, change.record) == ("remove", record)


@pytest.mark.parametrize(
    "record", [deployment("web", 3), replica_set(), namespace("shop")], ids=lambda one: one.meta.kind
)
def test_what_owns_pods_is_marked_and_passes_do_the_rest(record: Record) -> None:
    (change,) = verbs.delete(world(record), record, NOW)
    assert change.verb == "update"
    assert change.record.meta.deleting == NOW


def test_a_grace_given_with_the_deletion_reaches_the_pods_below() -> None:
    web_ = deployment("web", 3)
    owned = revision(web_, 1, "web:1")
    pod = replace(
        bare_pod("web-1-abc"), meta=meta("Pod", "web-1-abc", owner=Ref("ReplicaSet", "web-1", owned.meta.uid))
    )
    changes = verbs.delete(world(web_, owned, pod, bare_pod()), web_, NOW, grace_s=0)
    stops = [change.record for change in changes if isinstance(change.record, Pod)]
    assert [(one.meta.name, one.stop.grace_s) for one in stops if one.stop is not None] == [("web-1-abc", 0)]


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public", "kube-node-lease"])
def test_built_in_namespaces_are_always_there(name: str) -> None:
    there = web().replace("metadata: {name: web, labels: {}}", f"metadata: {{name: web, namespace: {name}}}")
    assert only(world(), there).outcome == "created"
    with pytest.raises(UsageError, match=f"{name} cannot be deleted"):
        verbs.delete(world(), namespace(name), NOW)


def test_nodes_are_not_deleted() -> None:
    with pytest.raises(UsageError, match="a node is not deleted") as caught:
        verbs.delete(world(), node("n1"), NOW)
    assert caught.value.hint == "sshoal node forget n1"


# ---- nodes and names ----------------------------------------------------------------------------------------------------


def test_cordoning_is_said_once() -> None:
    (change,) = verbs.cordon(node("n1"), True)
    assert change.record == node("n1", cordoned=True)
    assert verbs.cordon(node("n1", cordoned=True), True) == ()


def test_a_death_that_a_person_confirms_is_on_the_nodes_record() -> None:
    (change,) = verbs.confirm_dead(node("n1"), "powered-off")
    assert change.record == node("n1", confirmed_dead="powered-off")


def test_what_is_not_there_is_not_found_and_the_place_is_told() -> None:
    before = world(deployment("web", 3))
    assert verbs.find(before, "Deployment", "default", "web").meta.name == "web"
    with pytest.raises(NotFound, match='deployment "web" not found in namespace shop'):
        verbs.find(before, "Deployment", "shop", "web")


def test_scheduling_gates_are_all_that_may_be_taken_out_of_a_pod() -> None:
    def text(*gates: str) -> str:
        listed = ", ".join(f"{{name: {gate}}}" for gate in gates)
        return (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
            f"spec: {{schedulingGates: [{listed}], containers: [{{name: c, image: 'i:1'}}]}}\n"
        )

    gated = applied(world(), text("a/x", "a/y"))
    assert only(gated, text("a/y")).outcome == "configured"
    assert only(gated, text()).outcome == "configured"
    for worse in (text("a/x", "a/y", "a/z"), text().replace("i:1", "i:2")):
        with pytest.raises(ManifestError, match="the spec of a pod cannot be changed"):
            apply(gated, worse)
