"""`set image`: other images for the containers of a declared object. Pure: what is declared and the request in, the changed object out.

Meaning and words follow kubectl's `set image`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from controller.model.errors import NotFound, UsageError
from controller.model.manifest import POD_TEMPLATES

ALL = "*"


def parse_images(words: Sequence[str]) -> dict[str, str]:
    """CONTAINER=IMAGE each → image by container. Raises UsageError with the word that is wrong."""
    images: dict[str, str] = {}
    for word in words:
        name, _, image = word.partition("=")
        if not name or not image:
            raise UsageError(f"{word!r} is not CONTAINER=IMAGE", hint="for example nginx=nginx:1.27")
        if name in images:
            raise UsageError(f"container {name} is named twice")
        images[name] = image
    return images


def with_images(declared: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Any]:
    """The object with these images; `*` stands for all containers, init containers included.

    Raises: UsageError for an object without containers, NotFound for a container that it does not have.
    """
    changed = copy.deepcopy(dict(declared))
    containers = _containers(changed)
    if not containers:
        raise UsageError(f"a {changed['kind']} has no containers")
    names = [str(one["name"]) for one in containers]
    for name in images:
        if name != ALL and name not in names:
            raise NotFound(f"there is no container {name!r}", hint=f"its containers: {', '.join(names)}")
    for one in containers:
        one["image"] = images.get(one["name"]) or images.get(ALL) or one["image"]
    return changed


def _containers(thing: Mapping[str, Any]) -> list[dict[str, Any]]:
    for path in POD_TEMPLATES:
        pod: Any = thing
        for key in path:
            pod = (pod or {}).get(key)
        spec = (pod or {}).get("spec") or {}
        if "containers" in spec:
            return [*spec["containers"], *(spec.get("initContainers") or ())]
    return []
