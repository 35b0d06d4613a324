"""Which images are on which nodes, from what nodes report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from controller.cli.scene import Scene
from controller.decide.pins import PUSHED
from controller.model.imagename import canonical
from controller.model.text import printable
from nodeagent.protocol import RUNNING

_NODES_SHOWN = 4


@dataclass(slots=True)
class ImageOnNodes:
    """One image, and where it is."""

    id: str
    names: list[str]
    size_bytes: int
    nodes: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)  # repository@sha256:… as registries or pushes gave them
    pods: int = 0  # that run it
    pushed: list[str] = field(default_factory=list)  # names that `image push` last gave to this image


def images_of(scene: Scene, wanted: str = "", nodes: Collection[str] | None = None) -> list[ImageOnNodes]:
    """Images that nodes report, by name.

    Args:
        wanted: only of this name, written as in a manifest, or of this id or the beginning of one; empty: all.
        nodes: only on these; None: on all.
    """
    found: dict[str, ImageOnNodes] = {}
    for node in sorted(scene.world.sightings):
        seen = scene.seen(node)
        if seen is None or (nodes is not None and node not in nodes):
            continue
        running = Counter(
            _id(one.image_id) for pod in seen.pods.values() for one in pod.containers if one.state == RUNNING
        )
        for image in seen.images:
            key = _id(image.id)
            entry = found.setdefault(key, ImageOnNodes(printable(key, 80), [], image.size_bytes))
            entry.nodes.append(node)
            entry.pods += running[key]
            for told, kept in ((image.names, entry.names), (image.digests, entry.digests)):
                kept += [name for name in (printable(one, 300) for one in told) if name not in kept]
    for item in scene.world.declared.values():
        if item.meta.kind == PUSHED and item.source.get("id") in found:
            found[str(item.source["id"])].pushed.append(item.meta.name)
    chosen = [image for image in found.values() if not wanted or _is_called(image, wanted)]
    return sorted(chosen, key=lambda image: (not image.names, image.names, image.id))


def image_row(image: ImageOnNodes, total: int, *, wide: bool) -> list[str]:
    """IMAGE, ID, SIZE, PODS, NODES; wide: DIGESTS. `total`: how many nodes gave a report."""
    nodes = ",".join(image.nodes)
    if not wide and len(image.nodes) > 1 and len(image.nodes) == total:
        nodes = f"all {total}"
    elif not wide and len(image.nodes) > _NODES_SHOWN:
        nodes = f"{','.join(image.nodes[:_NODES_SHOWN])} and {len(image.nodes) - _NODES_SHOWN} more"
    cells = [",".join(image.names), image.id.removeprefix("sha256:")[:12], size_text(image.size_bytes)]
    return [*cells, str(image.pods), nodes, *([",".join(image.digests)] if wide else [])]


def _is_called(image: ImageOnNodes, wanted: str) -> bool:
    names = {canonical(name) for name in image.names} | {canonical(name) for name in image.digests}
    short = wanted.removeprefix("sha256:")
    return canonical(wanted) in names or (len(short) >= 6 and image.id.removeprefix("sha256:").startswith(short))


def _id(image_id: str) -> str:
    return image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"


def size_text(size_bytes: int) -> str:
    """3.4 MiB."""
    for unit, power in (("GiB", 3), ("MiB", 2)):
        if size_bytes >= 1024**power:
            return f"{size_bytes / 1024**power:.1f} {unit}"
    return f"{size_bytes / 1024:.1f} KiB"
