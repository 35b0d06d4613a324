"""The lab's network: one switch (a bridge in a namespace of its own) and one uplink to this machine.

Bridging inside its own namespace keeps this machine's firewall (Docker's FORWARD policy, firewalld) out of the traffic
between the hosts, and leaves two things to remove: the namespace and the uplink. Hosts plug themselves in when they boot
(boot.sh). In: names and the subnet. Effects: links, namespaces.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from lab.system import LabError, run

NETNS_DIR = Path("/run/netns")
CANDIDATES = tuple(ipaddress.IPv4Network(f"10.213.{third}.0/24") for third in range(256))


def choose_subnet(taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first candidate /24 that overlaps nothing in `taken`."""
    taken = tuple(taken)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise LabError("no free subnet for the lab in 10.213.0.0/16", hint="end a lab that is not needed: sshoal lab down")


def routed_subnets() -> list[ipaddress.IPv4Network]:
    """Every IPv4 destination this machine has a route to, the default route aside."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    return [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in routes
        if route.get("dst") and route["dst"] != "default"
    ]


def create_switch(switch: str, subnet: ipaddress.IPv4Network) -> None:
    """Makes the switch and gives this machine the subnet's first address on it. Replaces what a crash left."""
    remove_switch(switch)
    run(["ip", "netns", "add", switch])
    run(["ip", "-n", switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0"])
    run(["ip", "-n", switch, "link", "set", "br0", "up"])
    run(["ip", "link", "add", switch, "type", "veth", "peer", "name", "uplink", "netns", switch])
    run(["ip", "-n", switch, "link", "set", "uplink", "master", "br0", "up"])
    run(["ip", "address", "add", f"{subnet[1]}/{subnet.prefixlen}", "dev", switch])
    run(["ip", "link", "set", switch, "up"])


def remove_switch(switch: str) -> None:
    """Removes switch and uplink if they are there."""
    if Path("/sys/class/net", switch).exists():
        run(["ip", "link", "delete", switch])
    if (NETNS_DIR / switch).exists():
        run(["ip", "netns", "delete", switch])


def plug(switch: str, host: str) -> None:
    """Puts the host's cable into the switch. A host that is off has none: it plugs itself in when it boots."""
    if _has_cable(switch, host):
        run(["ip", "-n", switch, "link", "set", host, "master", "br0"])


def unplug(switch: str, host: str) -> None:
    """Takes the host's cable out of the switch. The host's own link stays up: packets vanish, as behind a dead switch."""
    if _has_cable(switch, host):
        run(["ip", "-n", switch, "link", "set", host, "nomaster"])


def _has_cable(switch: str, host: str) -> bool:
    return bool(run(["ip", "-n", switch, "-brief", "link", "show", "dev", host], check=False))
