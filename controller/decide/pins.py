"""Which bytes the tags in a revision stand for: settled once, when its first pods have nodes, and the same on every node after that. Pure.

In: revisions that have not settled it, what nodes have, what was pushed, and what registries answered in this pass. Out: the pins for the
records, and what a registry has to be asked first. The template and its hash stay as they are: a pin only says which of the things that
a tag has been called by it means, to whoever has yet to get the image.

The policy stays Kubernetes': Always asks the registry, IfNotPresent only when some node lacks the image, Never not at all. An example:
`reg/web:v1` with IfNotPresent on three nodes of which one has it. The registry is asked through a node that is to run it and says
sha256:ab…; all three are told `manifest:sha256:ab…`. The one with an older web:v1 pulls, the others too, whatever the tag becomes later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.decide import owners
from controller.decide.pods import is_active
from controller.decide.shapes import Shape, Shapes
from controller.model.cluster import AskKey, Declared, Meta, Moment, Seen, World
from controller.model.identity import child_uid
from controller.model.imagename import canonical, registry_of
from controller.model.plan import Ask, Change, NodeView
from nodeagent.protocol import IMAGE_PIN, MANIFEST_PIN

PUSHED = "Image"  # kind of the records of names that were pushed
PUSHED_MAX = 500
_ASKED_THROUGH_MAX = 2
_LOCAL = "localhost"  # no registry: the name that Podman gives to images of its own


@dataclass(frozen=True, slots=True)
class Settled:
    changes: tuple[Change, ...] = ()
    asks: tuple[Ask, ...] = ()


def settle(world: World, views: Mapping[str, NodeView], shapes: Shapes) -> Settled:
    """Pins for each revision that has none and has a pod on a node that answers; or what must be asked for that."""
    open_keys = {uid for uid, item in world.replica_sets.items() if item.images is None and item.replicas}
    open_keys |= {uid for uid in world.workloads if owners.pins_at(world, uid) is None}
    if not open_keys:
        return Settled()
    nodes: dict[str, list[str]] = defaultdict(list)  # by uid of the record that holds the template
    names: dict[str, str] = {}
    for pod in world.pods.values():
        key = owners.template_key(pod) if pod.node and is_active(pod) else ""
        view = views.get(pod.node)
        if key in open_keys and view is not None and view.may_push:
            nodes[key].append(pod.node)
            names[key] = pod.meta.namespace
    if not nodes:
        return Settled()
    known = _Known(world, views)
    changes: list[Change] = []
    asks: dict[AskKey, Ask] = {}
    for key in sorted(nodes):
        shape, record = shapes.of_owner(key, names[key]), owners.record_at(world, key)
        if shape is None or record is None:
            continue
        secrets = _secrets(world, shape)
        through = tuple(sorted(set(nodes[key])))[:_ASKED_THROUGH_MAX]
        found = {image: known.meaning(image, policy, secrets) for image, policy in _images(shape).items()}
        unasked = {image for image, meaning in found.items() if meaning is None}
        for image in unasked:
            ask = Ask(canonical(image), secrets, through)
            asks.setdefault((ask.image, ask.secrets), ask)
        if not unasked:
            settled = {image: meaning for image, meaning in found.items() if meaning is not None}
            changes += _changes(record, settled)
    return Settled(tuple(changes), tuple(asks.values()))


@dataclass(frozen=True, slots=True)
class _Meaning:
    """`pin` empty: it goes on by its tag. `why`: what people have to know then."""

    pin: str = ""
    why: str = ""


class _Known:
    """What can be known of images without asking anybody."""

    def __init__(self, world: World, views: Mapping[str, NodeView]) -> None:
        self._answers = world.answers
        seen = {name: one for name, one in world.sightings.items() if isinstance(one, Seen) and name in views}
        self._ready = {name for name in seen if views[name].may_place}
        self._one_architecture = len({one.capacity.arch for one in seen.values()}) <= 1
        self._ids: dict[str, dict[str, str]] = defaultdict(dict)  # name of an image → node → id
        self._held: set[str] = set()
        for node, one in seen.items():
            for image in one.images:
                image_id = image.id if image.id.startswith("sha256:") else f"sha256:{image.id}"
                self._held.add(image_id)
                for name in image.names:
                    self._ids[canonical(name)][node] = image_id
        self._pushed = {
            item.meta.name: str(item.source.get("id"))
            for item in world.declared.values()
            if item.meta.kind == PUSHED and str(item.source.get("id")) in self._held
        }

    def meaning(self, image: str, policy: str, secrets: tuple[str, ...]) -> _Meaning | None:
        """None: its registry is to be asked."""
        if "@" in image:
            return _Meaning()  # written with its digest
        name = canonical(image)
        if policy != "Always":
            if name in self._pushed and self._one_architecture:
                return _Meaning(IMAGE_PIN + self._pushed[name])
            ids = self._ids[name]
            everywhere = set(ids) >= self._ready
            if policy == "Never" or registry_of(name) == _LOCAL or (everywhere and len(set(ids.values())) == 1):
                return self._of_nodes(ids)
        answer = self._answers.get((name, secrets))
        if answer is None:
            return None
        if answer.digest:
            return _Meaning(MANIFEST_PIN + answer.digest)
        fallback = self._of_nodes(self._ids[name]) if policy != "Always" else _Meaning()
        return fallback if fallback.pin else _Meaning("", answer.why)

    def _of_nodes(self, ids: Mapping[str, str]) -> _Meaning:
        """By id, where all that have it have the same. Images of several architectures have several ids, and that is right."""
        different = set(ids.values())
        if len(different) == 1 and self._one_architecture:
            return _Meaning(IMAGE_PIN + next(iter(different)))
        if len(different) > 1 and self._one_architecture:
            each = ", ".join(f"{node} has {image_id[7:19]}" for node, image_id in sorted(ids.items())[:4])
            return _Meaning("", f"nodes have different images under this name ({each})")
        return _Meaning()


def _images(shape: Shape) -> dict[str, str]:
    """Image as written → its pull policy; where containers differ in that, Always counts."""
    found: dict[str, str] = {}
    for container in (*shape.wire.init_containers, *shape.wire.containers):
        if found.get(container.image) != "Always":
            found[container.image] = container.pull
    return found


def _secrets(world: World, shape: Shape) -> tuple[str, ...]:
    """Pull secrets that exist; the others are left out, as on the node."""
    present = {item.meta.key for item in world.declared.values() if item.meta.kind == "Secret"}
    return tuple(name for name in shape.wire.pull_secrets if name in present)


def _changes(record: Any, found: Mapping[str, _Meaning]) -> Iterable[Change]:
    """All in one record; a line of its own for each that goes on by its tag for a reason."""
    pinned = replace(record, images={image: meaning.pin for image, meaning in sorted(found.items())})
    meta: Meta = record.meta
    yield Change("update", pinned, f"{meta.name} has settled which images its tags stand for", quiet=True)
    for image, meaning in sorted(found.items()):
        if meaning.why:
            because = f"{image} goes on by its tag, and nodes may come to run different images: {meaning.why}"
            yield Change("update", pinned, because, "ImageNotResolved", warning=True)


def remember_pushed(world: World, pushed: Mapping[str, str], now: Moment) -> tuple[Change, ...]:
    """What names stand for since somebody pushed them: canonical name → id of the image. The oldest of too many are forgotten."""
    known = {item.meta.name: item for item in world.declared.values() if item.meta.kind == PUSHED}
    changes: list[Change] = []
    for name, image_id in sorted(pushed.items()):
        before = known.get(name)
        uid = child_uid(world.cluster.id, f"image/{name}")
        meta = Meta(PUSHED, "", name, uid, now, version=before.meta.version if before else 0)
        known[name] = Declared(meta, {"id": image_id})
        changes.append(Change("update" if before else "create", known[name], f"{name} was pushed", quiet=True))
    oldest = sorted(known.values(), key=lambda item: (item.meta.created.wall_s, item.meta.name))
    too_many = oldest[: max(0, len(oldest) - PUSHED_MAX)]
    gone = [Change("remove", item, f"{PUSHED_MAX} pushed names are kept", quiet=True) for item in too_many]
    return (*changes, *gone)
