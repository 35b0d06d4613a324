"""Volumes that last: made, verified and removed as the wanted set says. In: orders, what engine and directories have. Out: paths, reports.

Never removed: a volume without an order to remove it, one that a pod here still mounts, and anything whose name or labels are not this
cluster's. Never made: one that was there before and is missing now, since an empty one in its place would hide the loss. The volumes
themselves are the only state, so that an agent that lost its own finds them again.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from nodeagent.deadline import within
from nodeagent.protocol import (
    VOLUME_HELD,
    VOLUME_MISSING,
    VOLUME_REMOVED,
    VOLUME_UNUSABLE,
    ClaimVolume,
    VolumeReport,
)
from nodeagent.records import cut
from nodeagent.runtime import LABEL_CLAIM, LABEL_CLUSTER, RuntimeFault

VOLUMES_MAX = 1024  # that are reported
RETRY_S = 30.0  # after something could not be done
_REST = re.compile(r"[0-9a-f-]{36}-[0-9]{1,9}\Z")

Place = tuple[str, str]  # (directory, "" for Podman's; name)


def is_name(name: str, cluster: str) -> bool:
    """Whether a volume may be this cluster's: its name is a part of paths, and came over the wire."""
    beginning = f"sshoal-{cluster}-"
    return name.startswith(beginning) and _REST.match(name[len(beginning) :]) is not None


def is_directory(path: str) -> bool:
    """Whether volumes may be told to lie there; empty stands for Podman's own."""
    return not path or (path.startswith("/") and ".." not in path.split("/") and "\0" not in path)


@dataclass(frozen=True)
class _Orders:
    cluster: str
    volumes: tuple[ClaimVolume, ...]
    directories: tuple[str, ...]  # where to look for volumes that are not ordered


class Volumes:
    """`host` is the supervisor. Create it within a running event loop."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._orders: Optional[_Orders] = None
        self._reports: dict[str, VolumeReport] = {}
        self._looked = False
        self._wake = asyncio.Event()
        self._task: Optional[asyncio.Task[None]] = None
        self._removals: dict[str, asyncio.Task[VolumeReport]] = {}  # under way, and those whose order still stands

    @property
    def reports(self) -> Optional[tuple[VolumeReport, ...]]:
        """None before the first look: what is there is not known then."""
        if not self._looked:
            return None
        return tuple(report for _, report in sorted(self._reports.items()))

    def paths(self) -> Mapping[str, str]:
        """Host paths of the volumes that can be mounted, by name."""
        return {name: report.path for name, report in self._reports.items() if report.state == VOLUME_HELD}

    def want(self, cluster: str, volumes: tuple[ClaimVolume, ...], directories: Iterable[str]) -> None:
        """The orders in force."""
        orders = _Orders(cluster, volumes, tuple(directories))
        if orders == self._orders:
            return
        self._orders = orders
        removed = {order.name for order in volumes if order.remove}
        self._removals = {name: task for name, task in self._removals.items() if name in removed or not task.done()}
        self.look()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def look(self) -> None:
        """Something may have changed: who waits for it need not wait long."""
        self._wake.set()

    def pod_ended(self) -> None:
        """A removal may have waited for it."""
        if self._orders is not None and any(order.remove for order in self._orders.volumes):
            self.look()

    async def end(self) -> None:
        tasks = [*self._removals.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- rounds ---------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                done = await self._round()
            except Exception as error:  # a defect of ours: say so and go on
                done = False
                context = {"message": "defect while looking after volumes", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
            try:
                await within(None if done else RETRY_S, self._wake.wait())
            except asyncio.TimeoutError:
                continue

    async def _round(self) -> bool:
        """Looks, does what is ordered, reports. Whether there is nothing to try again."""
        orders = self._orders
        assert orders is not None
        try:
            places, blind = await self._find(orders)
        except RuntimeFault:
            return False  # what is there is not known: nothing is said of it
        reports: dict[str, VolumeReport] = {}
        for order in orders.volumes:
            why = blind.get(order.directory, "")
            if why:
                reports[order.name] = VolumeReport(order.name, VOLUME_UNUSABLE, "", why, order.directory)
            else:
                reports[order.name] = await self._settle(orders.cluster, order, places)
            if self._reports.get(order.name) != reports[order.name]:
                self._tell({**self._reports, order.name: reports[order.name]})
        for (directory, name), path in sorted(places.items()):
            if name not in reports and len(reports) < VOLUMES_MAX:
                reports[name] = VolumeReport(name, VOLUME_HELD, path, directory=directory)
        self._tell(reports, looked=True)
        return all(report.state != VOLUME_UNUSABLE for report in reports.values())

    async def _find(self, orders: _Orders) -> tuple[dict[Place, str], dict[str, str]]:
        """Every volume of this cluster on this host: its path; and directories that can't be looked into, with the reason.

        Raises: RuntimeFault.
        """
        listed = await self._host.guard(self._host.runtime.volumes())
        found = {
            ("", info.name): info.path
            for info in listed
            if info.labels.get(LABEL_CLUSTER) == orders.cluster and is_name(info.name, orders.cluster)
        }
        blind: dict[str, str] = {}
        directories = {*orders.directories, *(order.directory for order in orders.volumes)} - {""}
        for directory in sorted(directories):
            try:
                named = await self._host.files.volumes(directory)
            except OSError as error:
                blind[directory] = cut(f"{error.strerror or error}: {directory}")
                continue
            found.update({(directory, name): path for name, path in named.items() if is_name(name, orders.cluster)})
        return found, blind

    async def _settle(self, cluster: str, order: ClaimVolume, places: Mapping[Place, str]) -> VolumeReport:
        """One order. What fails is told, and tried again."""
        path = places.get((order.directory, order.name), "")
        try:
            if order.remove:
                return self._removal(order, path)
            if not path and not order.make:
                message = "it is not there; is its disk mounted?" if order.directory else "Podman does not have it"
                return VolumeReport(order.name, VOLUME_MISSING, "", message, order.directory)
            if order.make:
                path = await self._make(cluster, order, path)
            return VolumeReport(order.name, VOLUME_HELD, path, "", order.directory)
        except (RuntimeFault, OSError) as error:
            return _failed(order, path, error)

    async def _make(self, cluster: str, order: ClaimVolume, path: str) -> str:
        if not path and order.directory:
            path = await self._host.files.make_volume(order.directory, order.name)
        elif not path:
            labels = {LABEL_CLUSTER: cluster, LABEL_CLAIM: order.claim}
            path = str(await self._host.guard(self._host.runtime.create_volume(order.name, labels)))
        await self._host.files.open_volume(path)
        return path

    def _removal(self, order: ClaimVolume, path: str) -> VolumeReport:
        """Removing many files takes minutes: it is begun, and looked at again in later rounds. Other volumes need not wait."""
        task = self._removals.get(order.name)
        if task is not None and task.done():
            if task.result().state == VOLUME_UNUSABLE:
                del self._removals[order.name]  # it is tried again in a later round
                return task.result()
            if not path:
                return task.result()
            task = None  # it has come again
        if task is None:
            user = self._user(order.name)
            if user:
                message = f"it is removed once {user} has ended"
                return VolumeReport(order.name, VOLUME_HELD, path, message, order.directory)
            task = self._removals[order.name] = asyncio.get_running_loop().create_task(self._remove(order, path))
            task.add_done_callback(lambda _: self.look())
        before = self._reports.get(order.name)
        if before is not None and before.state == VOLUME_UNUSABLE:
            return before
        return VolumeReport(order.name, VOLUME_HELD, path, "it is being removed", order.directory)

    async def _remove(self, order: ClaimVolume, path: str) -> VolumeReport:
        try:
            if order.directory:
                await self._host.files.remove_volume(order.directory, order.name)
            else:
                await self._host.guard(self._host.runtime.remove_volume(order.name))
        except (RuntimeFault, OSError) as error:
            return _failed(order, path, error)
        return VolumeReport(order.name, VOLUME_REMOVED, "", "", order.directory)

    def _user(self, name: str) -> str:
        """Who mounts it; a pod of which nothing is known may."""
        if not self._host.adopted.is_set():
            return "what runs here is known and"
        for _, worker in sorted(self._host.workers.items()):
            mounted = worker.pod is None or any(volume.claim == name for volume in worker.pod.volumes)
            if mounted:
                return f"pod {worker.record.namespace}/{worker.record.name}"
        return ""

    def _tell(self, reports: dict[str, VolumeReport], *, looked: bool = False) -> None:
        if reports == self._reports and self._looked >= looked:
            return
        self._reports, self._looked = reports, self._looked or looked
        self._host.ledger.tell_topic("volumes")
        self._host.content_changed()


def _failed(order: ClaimVolume, path: str, error: Exception) -> VolumeReport:
    message = str(error)
    if isinstance(error, OSError):
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return VolumeReport(order.name, VOLUME_UNUSABLE, path, cut(message), order.directory)
