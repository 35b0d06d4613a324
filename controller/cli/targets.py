"""Which objects a command is for: those it names, those of some kinds that a selector chooses, or all of these kinds.

In: words and options of the command line. Out: Targets, which find their records in a world. Pure. The one place where that is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from controller.cli.names import WITHOUT_NAMESPACE, parse_kind, parse_targets
from controller.decide.verbs import find, records_of
from controller.model.cluster import Node
from controller.model.errors import NotFound, UsageError
from controller.model.selectors import Predicate, parse_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.model.cluster import Meta, Record, World

    Identity = tuple[str, str, str]  # kind, namespace ("" where there is none, or where all are meant), name

ALL = ("Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob")  # what "all" stands for
NONE_FOUND = "No resources found"  # kubectl's words


@dataclass(frozen=True, slots=True)
class Targets:
    """Objects by their names, or all of `kinds` in a namespace whose labels match."""

    kinds: tuple[str, ...] = ()
    names: tuple[Identity, ...] | None = ()  # None: they are not chosen by names
    namespace: str = ""  # "": all of them
    matches: Predicate = lambda labels: True

    @property
    def words(self) -> str:
        """The kinds, as a message names them."""
        return ", ".join(f"{kind.lower()}s" for kind in self.kinds)

    def and_named(self, names: Iterable[Identity]) -> Targets:
        """Those of `names` too. Raises UsageError where objects are chosen otherwise."""
        if self.names is None:
            raise UsageError("-f names objects: it goes with neither -l nor --all")
        return replace(self, names=(*self.names, *names))

    def records(self, world: World, *, missing_ok: bool = False) -> list[Record]:
        """Each once: as they are named, or by kind, namespace and name. Raises NotFound for a name that is not there."""
        if self.names is None:
            return [record for kind in self.kinds for record in records_of(world, kind) if self._is_meant(record)]
        found = []
        for kind, namespace, name in dict.fromkeys(self.names):
            if not namespace and kind not in WITHOUT_NAMESPACE:
                raise NotFound(f"{kind.lower()} {name}: of which namespace?", hint="-n NAMESPACE rather than -A")
            try:
                found.append(find(world, kind, namespace, name))
            except NotFound:
                if not missing_ok:
                    raise
        return found

    def _is_meant(self, record: Record) -> bool:
        meta = record.meta
        here = not self.namespace or meta.kind in WITHOUT_NAMESPACE or meta.namespace == self.namespace
        return here and self.matches(labels_of(record))


def parse_chosen(words: Sequence[str], namespace: str, selector: str | None, every: bool) -> Targets:
    """For commands that want to be told which: names, or kinds with a selector (-l) or `every` (--all).

    Raises: UsageError for a kind alone, and for more than one of the three.
    """
    if selector is not None and every:
        raise UsageError("--all is set, but there is a selector too", hint="choose one of --all and -l")
    if selector is None and not every:
        if len(words) == 1 and "/" not in words[0]:
            raise UsageError(
                f"{words[0]!r}: which one?", hint=f"sshoal … {words[0]} NAME; or {words[0]} with -l LABELS or --all"
            )
        return _named(parse_targets(words, namespace), namespace)
    how = "a selector" if selector is not None else "--all"
    if not words:
        raise UsageError(f"at least one resource must be specified to use {how}", hint="for example pods, or deploy,cm")
    if len(words) > 1 or "/" in words[0]:
        raise _named_too(how)
    kinds = parse_kinds(words[0])
    if "Event" in kinds:
        raise UsageError("events are only shown", hint="sshoal events")
    return Targets(kinds, None, namespace, parse_selector(selector or ""))


def parse_shown(words: Sequence[str], namespace: str, selector: str, field_selector: str = "") -> Targets:
    """For commands that look: names, or kinds, of which all are meant unless a selector chooses. Raises UsageError."""
    if len(words) > 1 or "/" in words[0]:
        if selector.strip():
            raise _named_too("a selector")
        if field_selector:
            raise _named_too("a field selector")
        names = parse_targets(words, namespace)
        if any(kind == "Event" for kind, _, _ in names):
            raise UsageError("events have no names", hint="sshoal events --for deployment/web")
        return _named(names, namespace)
    kinds = parse_kinds(words[0])
    if "Event" in kinds and len(kinds) > 1:
        raise UsageError("events are shown by themselves", hint="sshoal events")
    return Targets(kinds, None, namespace, parse_selector(selector))


def parse_kinds(word: str) -> tuple[str, ...]:
    """ "deploy,cm" → ("Deployment", "ConfigMap"); "all" → those of workloads and their pods. Raises UsageError."""
    if word.lower() == "all":
        return ALL
    kinds = tuple(dict.fromkeys(parse_kind(one) for one in word.split(",") if one))
    if not kinds:
        raise UsageError(f"{word!r} names no kind", hint="for example pods, or deploy,cm")
    return kinds


def _named(names: Sequence[Identity], namespace: str) -> Targets:
    return Targets(tuple(dict.fromkeys(kind for kind, _, _ in names)), tuple(names), namespace)


def _named_too(how: str) -> UsageError:
    return UsageError(f"name cannot be provided when {how} is specified", hint="only kinds: pods, or deploy,cm")


def labels_of(record: Record) -> Mapping[str, str]:
    """What selectors see. A node's come from its inventory as well."""
    return {**record.labels, **record.meta.labels} if isinstance(record, Node) else with_own_name(record.meta)


def with_own_name(meta: Meta) -> Mapping[str, str]:
    """Labels of an object; of a namespace with the one that Kubernetes gives each."""
    return {**meta.labels, "kubernetes.io/metadata.name": meta.name} if meta.kind == "Namespace" else meta.labels
