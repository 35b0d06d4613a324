"""Where pods of sticky StatefulSets are at home: the node to which they come back, and the address they keep there. Pure.

In: the world once pods are placed. Out: homes in the records of the sets, and the addresses of pods that were just placed.
`sshoal.dev/sticky-node: "true"` on a StatefulSet: a name that ran on a node runs there only, until that node is confirmed dead or
forgotten. A set with volumes needs no such word: its claims hold its pods where they are.
`sshoal.dev/sticky-address: "true"`: a name keeps its address on a node. Addresses come from the upper half of the node's subnet; Podman
gives out the lower half (DESIGN, network).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from controller.decide.shapes import Shapes
from controller.model.cluster import Node, World
from controller.model.plan import Change
from controller.model.workloads import Home, StatefulSet

STICKY_NODE, STICKY_ADDRESS = "sshoal.dev/sticky-node", "sshoal.dev/sticky-address"


def is_sticky(item: StatefulSet) -> bool:
    return item.meta.annotations.get(STICKY_NODE) == "true"


def keeps_addresses(item: StatefulSet) -> bool:
    return item.meta.annotations.get(STICKY_ADDRESS) == "true"


def keep(world: World) -> tuple[Change, ...]:
    """Records where pods went, and gives fixed addresses to those that were just placed."""
    sets = {
        uid: item
        for uid, item in world.workloads.items()
        if isinstance(item, StatefulSet) and (is_sticky(item) or keeps_addresses(item))
    }
    if not sets:
        return ()
    shapes = Shapes(world)
    homes = {uid: dict(item.homes) for uid, item in sets.items()}
    changes = []
    for pod in sorted(world.pods.values(), key=lambda pod: pod.meta.key):
        item = sets.get(pod.meta.owner.uid) if pod.meta.owner is not None and pod.node else None
        if item is None:
            continue
        address = pod.address
        shape = shapes.of(pod)
        if pod.report is None and not address and keeps_addresses(item) and shape and not shape.spec.host_network:
            address = _address(world, homes[item.meta.uid].get(pod.meta.name), world.nodes.get(pod.node), homes)
        if address != pod.address:
            changes.append(Change("update", replace(pod, address=address), f"it has the address {address}", quiet=True))
        if pod.stop is None:
            homes[item.meta.uid][pod.meta.name] = Home(pod.node, address)
    for uid, item in sets.items():
        if homes[uid] != item.homes:
            fresh = replace(item, homes=homes[uid])
            changes.append(Change("update", fresh, f"pods of {item.meta.name} are at home", quiet=True))
    return tuple(changes)


def _address(world: World, home: Home | None, node: Node | None, homes: dict[str, dict[str, Home]]) -> str:
    """The one it had on this node, else the lowest that is free; "" when none is: then Podman gives one out."""
    if node is None or not node.subnet:
        return ""
    if home is not None and home.node == node.meta.name and home.address:
        return home.address
    taken = {one.address for one in _all(homes) if one.node == node.meta.name}
    taken |= {
        one.address
        for item in world.workloads.values()
        if isinstance(item, StatefulSet)
        for one in item.homes.values()
        if one.node == node.meta.name
    }
    taken |= {pod.address for pod in world.pods.values() if pod.node == node.meta.name}
    network = ipaddress.ip_network(node.subnet)
    upper = (str(network[number]) for number in range(network.num_addresses // 2, network.num_addresses - 1))
    return next((address for address in upper if address not in taken), "")


def _all(homes: dict[str, dict[str, Home]]) -> Iterable[Home]:
    return (home for own in homes.values() for home in own.values())


def home_of(item: StatefulSet, name: str) -> str:
    """The node to which a new pod of that name is bound to go; "" when there is none."""
    home = item.homes.get(name)
    return home.node if home is not None and is_sticky(item) else ""
