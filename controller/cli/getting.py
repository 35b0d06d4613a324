"""What `get` answers: which objects, in which order, as a table or a document. In: what is asked for, and a Scene. Out: text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from controller.cli.fields import FieldSelector
from controller.cli.names import WITHOUT_NAMESPACE, resource
from controller.cli.objects import event_object, to_list, to_object
from controller.cli.output import check_output, document, table
from controller.cli.scene import Scene, events_of
from controller.cli.tables import LabelColumns, event_rows, parse_label_columns, rows_of
from controller.cli.targets import ALL, Targets, labels_of

if TYPE_CHECKING:
    from controller.act.store import Event
    from controller.cli.columns import CustomColumns
    from controller.cli.ordering import Order
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Record

_EVENT = ("Event",)
_CUSTOM = "custom-columns"
_FORMATS = ("table", "wide", "json", "yaml", "name", f"{_CUSTOM}=NAME:PATH,…")
# Of these hosts know more than the store.
_OF_HOSTS = (*ALL, "Node", *_EVENT, "PersistentVolumeClaim", "HorizontalPodAutoscaler")


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer looks."""

    output: str
    headers: bool
    labels: LabelColumns
    columns: CustomColumns | None  # in place of those of the kinds
    order: Order | None

    @property
    def is_table(self) -> bool:
        return self.columns is not None or self.output in ("table", "wide")

    def unordered(self) -> Shape:
        return replace(self, order=None)


def parse_shape(output: str, *, headers: bool, show_labels: bool, keys: Sequence[str], sort_by: str) -> Shape:
    """Raises UsageError."""
    labels = parse_label_columns(keys, every=show_labels)
    custom = order = None
    name, _, columns = output.partition("=")
    if name == _CUSTOM:
        from controller.cli.columns import parse_columns

        custom = parse_columns(columns)
    else:
        check_output(output, _FORMATS)
    if sort_by:
        from controller.cli.ordering import parse_order

        order = parse_order(sort_by)
    return Shape(output, headers, labels, custom, order)


class Question:
    """Which objects are asked for, and how the answer shall look."""

    def __init__(self, targets: Targets, shape: Shape, fields: FieldSelector = FieldSelector()) -> None:
        self._targets, self._shape, self._fields = targets, shape, fields
        self.namespaced = not all(kind in WITHOUT_NAMESPACE for kind in targets.kinds)
        self.needs_hosts = any(kind in _OF_HOSTS for kind in targets.kinds)
        self.words = targets.words

    def answer(self, wiring: Wiring, scene: Scene) -> str:
        """Text in the format asked for; "" when nothing was found."""
        output = self._shape.output
        if self._shape.is_table:
            return self.table(wiring, scene)
        if self._targets.kinds == _EVENT:
            check_output(output, ("table", "wide", "json", "yaml"))
        elif output == "name":
            return "\n".join(f"{resource(one.meta.kind)}/{one.meta.name}" for one in self._records(scene))
        objects = self._objects(wiring, scene)
        single = len(self._targets.names or ()) == 1 and len(objects) == 1
        return document(objects[0] if single else to_list(objects), output)

    def table(self, wiring: Wiring, scene: Scene) -> str:
        """Lines of columns; "" when nothing was found."""
        custom, kinds, namespace = self._shape.columns, self._targets.kinds, self._targets.namespace
        if custom is not None:
            rows = [custom.row(value) for value in self._objects(wiring, scene)]
            return table(custom.header, rows, headers=self._shape.headers) if rows else ""
        if kinds == _EVENT:
            found = self._events(wiring, scene)
            header, rows = event_rows(found, scene.now.wall_s, namespaces=not namespace)
            return self._labelled(header, rows, [{}] * len(rows)) if rows else ""
        chosen = self._records(scene)
        parts = []
        for kind in kinds:
            records = [record for record in chosen if record.meta.kind == kind]
            strangers = _strangers(scene, self._targets) if kind == "Node" and not self._fields.terms else []
            if not records and not strangers:
                continue
            namespaces = not namespace and kind not in WITHOUT_NAMESPACE
            header, rows = rows_of(scene, kind, records, wide=self._shape.output == "wide", namespaces=namespaces)
            rows += [[*row, *["<unknown>"] * (len(header) - len(row))] for row in strangers]
            if len(kinds) > 1:
                place = 1 if namespaces else 0
                for row in rows:
                    row[place] = f"{resource(kind)}/{row[place]}"
            parts.append(self._labelled(header, rows, [*map(labels_of, records), *[{}] * len(strangers)]))
        return ("\n\n" if self._shape.headers else "\n").join(parts)

    def _labelled(self, header: list[str], rows: list[list[str]], labels: Sequence[Mapping[str, str]]) -> str:
        """A table with the columns of labels that are asked for behind the others."""
        columns = self._shape.labels
        rows = [[*row, *columns.row(found)] for row, found in zip(rows, labels, strict=True)]
        return table([*header, *columns.header], rows, headers=self._shape.headers)

    def _objects(self, wiring: Wiring, scene: Scene) -> list[dict[str, Any]]:
        if self._targets.kinds == _EVENT:
            return [event_object(event) for event in self._events(wiring, scene)]
        return [to_object(scene, record) for record in self._records(scene)]

    def _records(self, scene: Scene) -> list[Record]:
        found, order = chosen(scene, self._targets), self._shape.order
        if self._fields.terms:
            found = [record for record in found if self._fields.matches(to_object(scene, record))]
        return found if order is None else order.sorted(found, lambda record: to_object(scene, record))

    def _events(self, wiring: Wiring, scene: Scene) -> list[Event]:
        found, order = told(wiring, scene, ("", self._targets.namespace, "")), self._shape.order
        if self._fields.terms:
            found = [event for event in found if self._fields.matches(event_object(event))]
        return found if order is None else order.sorted(found, event_object)


def chosen(scene: Scene, targets: Targets) -> list[Record]:
    """Raises NotFound when an object that was named is not there."""
    if targets.names is not None:  # hosts of the inventory that are no nodes yet have no records
        strangers = {("Node", "", name) for name in scene.views if name not in scene.world.nodes}
        targets = replace(targets, names=tuple(one for one in targets.names if one not in strangers))
    return targets.records(scene.world)


def told(wiring: Wiring, scene: Scene, target: tuple[str, str, str]) -> list[Event]:
    """Events about (kind, namespace, name), of which each may be "": any."""
    kind, namespace, name = target
    stored = wiring.store.events(kind=kind, namespace=namespace, name=name)
    return [
        event
        for event in events_of(scene, stored)
        if (not kind or event.kind == kind)
        and (not namespace or event.namespace == namespace)
        and (not name or event.name == name)
    ]


def _strangers(scene: Scene, targets: Targets) -> list[list[str]]:
    """Hosts of the inventory that are no nodes yet: they have no labels."""
    named = None if targets.names is None else {name for kind, _, name in targets.names if kind == "Node"}
    rows = []
    for name, view in scene.views.items():
        if name not in scene.world.nodes and (targets.matches({}) if named is None else name in named):
            host = scene.world.hosts.get(name)
            address = host.address if host else "<unknown>"
            rows.append([name, view.state, "0", "<none>", "<none>", "<none>", address])
    return rows
