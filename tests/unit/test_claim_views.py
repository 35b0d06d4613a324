"""Volume claims as users meet them: verbs, tables, objects, `describe`, what a loss would mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from controller.cli import confirming
from controller.cli.describe import describe
from controller.cli.names import parse_kind
from controller.cli.objects import to_object
from controller.cli.scene import Scene
from controller.cli.tables import rows_of
from controller.decide import verbs
from controller.decide.rebalance import rebalance
from controller.decide.standing import progress_of
from controller.decide.whatif import Imagined, imagine
from controller.model.cluster import Stray, VolumeClaim, World
from controller.model.errors import ManifestError
from controller.model.manifest import load
from nodeagent.protocol import VOLUME_MISSING, VolumeReport
from tests.agents import Agents
from tests.builders import bare_pod, claim, claiming, cluster, deployment, moment, put, stateful_set, template

TEMPLATES = [{"metadata": {"name": "data"}, "spec": dict(claim().source["spec"])}]


# ---- what is shown ----------------------------------------------------------------------------------------------------------


def test_the_columns_are_kubectl_s_with_node_and_path_when_wide() -> None:
    scene = _scene(claim(), bare_pod(**claiming()), claim("waiting", modes=["ReadWriteMany"]))
    header, rows = rows_of(
        scene, "PersistentVolumeClaim", scene.records("PersistentVolumeClaim"), wide=True, namespaces=False
    )
    bound, waiting = rows
    volume = _claim(scene.world).volume
    assert header[:2] == ["NAME", "STATUS"]
    assert bound[:6] == ["data", "Bound", volume, "1Gi", "RWO", "podman"]
    assert bound[7:] == ["Filesystem", "n1", f"/volumes/{volume}"]
    assert waiting[:6] == ["waiting", "Pending", "", "", "", "podman"]
    assert {parse_kind(word) for word in ("pvc", "persistentvolumeclaims")} == {"PersistentVolumeClaim"}


def test_an_object_has_kubernetes_status() -> None:
    scene = _scene(claim(), bare_pod(**claiming()))
    found = to_object(scene, _claim(scene.world))
    assert (found["apiVersion"], found["kind"]) == ("v1", "PersistentVolumeClaim")
    assert found["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    assert found["spec"]["volumeName"] == _claim(scene.world).volume
    assert found["spec"]["storageClassName"] == "podman"


def test_describe_tells_who_uses_it_what_is_lost_and_what_a_deletion_waits_for() -> None:
    scene = _scene(claim(), bare_pod(**claiming()))
    record = _claim(scene.world)
    assert "Used by:          lonely" in describe(scene, record, [])
    deleted = _shown(scene, meta=replace(record.meta, deleting=moment()))
    assert "waits until these pods have ended: lonely" in deleted
    missing = _shown(scene, report=VolumeReport(record.volume, VOLUME_MISSING))
    assert "Lost" in missing
    assert "its volume is missing on n1" in missing
    told = _shown(scene, lost="node n9 was confirmed wiped", stale={"sshoal-old": Stray("n9", "")})
    assert "Data lost:        node n9 was confirmed wiped" in told
    assert "sshoal-old on n9: old data, not used" in told


def test_a_stateful_set_and_a_pod_show_their_claims() -> None:
    scene = _scene(stateful_set(replicas=1, volumeClaimTemplates=TEMPLATES))
    assert "Volume claim:     data-web-0 Bound n1" in describe(scene, scene.records("StatefulSet")[0], [])
    scene = _scene(claim(), bare_pod(**claiming()))
    assert "persistentVolumeClaim data" in describe(scene, scene.records("Pod")[0], [])


def test_a_node_shows_its_claims_and_volumes_that_no_claim_knows() -> None:
    scene = _scene(claim(), bare_pod(**claiming()))
    seen = scene.seen("n1")
    assert seen is not None
    strange = replace(
        seen, volumes={**(seen.volumes or {}), "sshoal-x": VolumeReport("sshoal-x", "held", "/old\x1b[31m")}
    )
    scene = replace(scene, world=replace(scene.world, sightings={"n1": strange}))
    said = describe(scene, scene.world.nodes["n1"], [])
    assert "Volume claim:     default/data" in said
    assert "Of no claim:      volume sshoal-x at /old" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("how", "words"), [("wiped", "THE DATA of these volume claims is lost"), ("powered-off", "wait for its return")]
)
def test_confirming_a_host_dead_says_aloud_what_that_means_for_data(how: str, words: str) -> None:
    scene = _scene(claim(), bare_pod(**claiming()))
    [said] = [line for line in confirming.shown(scene.world, scene.world.nodes["n1"], how) if words in line]
    assert said.endswith(": default/data")


# ---- verbs ------------------------------------------------------------------------------------------------------------------


def test_apply_declares_a_claim_and_is_done_before_it_is_bound() -> None:
    before = cluster(1)
    [one] = _apply(before, claim().source)
    assert (one.kind, one.outcome) == ("PersistentVolumeClaim", "created")
    assert progress_of(before, one.change.record).done, "it waits for a consumer"
    [again] = _apply(put(before, one.change.record), claim().source)
    assert again.outcome == "unchanged"


def test_a_claim_may_grow_and_nothing_else_of_it_may_change() -> None:
    before = cluster(1, claim(size="2Gi"))
    [grown] = _apply(before, claim(size="3Gi").source)
    assert grown.outcome == "configured"
    for changed, words in (
        (claim(size="1Gi"), "spec.resources.requests.storage: may grow, not shrink"),
        (claim(size="2Gi", storageClassName="fast"), "spec.storageClassName: cannot be changed"),
        (claim(size="2Gi", modes=["ReadWriteMany"]), "spec.accessModes: cannot be changed"),
    ):
        with pytest.raises(ManifestError, match=words):
            _apply(before, changed.source)


def test_claim_templates_of_a_set_are_fixed() -> None:
    before = cluster(1, stateful_set(volumeClaimTemplates=TEMPLATES))
    with pytest.raises(ManifestError, match=r"spec\.volumeClaimTemplates: cannot be changed once"):
        _apply(before, stateful_set().source)


def test_deleting_a_claim_marks_it_and_applying_it_again_has_to_wait() -> None:
    record = claim()
    [change] = verbs.delete(cluster(1, record), record, moment())
    assert change.verb == "update"
    assert change.record.meta.deleting is not None
    with pytest.raises(ManifestError, match="is being deleted"):
        _apply(cluster(1, change.record), record.source)


# ---- what would be ----------------------------------------------------------------------------------------------------------


def test_a_lost_host_s_claims_would_hold_their_pods_up() -> None:
    agents = Agents(cluster(3, claim(), deployment(replicas=2, pods=template(**claiming()))))
    agents.settle(20)
    lost = _claim(agents.world).node
    outcome = imagine(agents.observed(), Imagined(lose=(lost,)), moment(999))
    assert len(outcome.unplaced) == 2
    assert f"volume claim data lives on {lost}" in outcome.unplaced[0][1].summary


def test_what_has_a_volume_is_not_proposed_to_move() -> None:
    agents = Agents(cluster(3, claim(), deployment(replicas=6, pods=template(requests={"cpu": "500m"}, **claiming()))))
    agents.settle(20)
    plan = agents.step()
    assert rebalance(agents.world, plan.nodes, 10) == ()


def _scene(*things: Any) -> Scene:
    agents = Agents(cluster(1, *things))
    agents.settle(30)
    return Scene(agents.observed(), agents.step().nodes, moment(agents.seconds))


def _shown(scene: Scene, **changes: Any) -> str:
    record = replace(_claim(scene.world), **changes)
    return describe(replace(scene, world=put(scene.world, record)), record, [])


def _claim(world: World) -> VolumeClaim:
    return next(one for one in world.claims.values() if one.meta.name == "data")


def _apply(before: World, source: Any) -> Any:
    return verbs.apply(before, load(yaml.safe_dump(dict(source)), "a.yaml").manifests, lambda values: "", moment(100))
