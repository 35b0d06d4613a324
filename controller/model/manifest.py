"""Station 1. Text of a manifest → objects. Pure. Next: the store.

In: the text of one file, YAML or JSON, with any number of documents. Out: its objects, each with the data as written,
and notes; or one ManifestError with every problem of the file, each with its line and the field's path.

What the file says is never dropped in silence: a field or kind that Kubernetes has and sshoal lacks is an error, which
`lenient` turns into a warning. Only what an API server wrote into an object (`kubectl get -o yaml`: status, uid, …)
is left out with no more than a note, because it describes another cluster.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from controller.model.errors import ManifestError
from controller.model.kinds import API_VERSIONS, KINDS, Object, PodTemplateSpec, unsupported
from controller.model.kinds.check import show
from controller.model.kinds.meta import DEFAULT_NAMESPACE, shown
from controller.model.older import VERSIONS, renewed
from controller.model.shape import NOT_YET, Problem, Shape, describe, drop_nulls, nearest, read_shape
from controller.model.yamlscan import Document, Path, scan

MOST_PROBLEMS = 1000  # then reading stops, between two documents
_MOST_NAMES = 20  # in a hint


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as read. `source` is plain JSON data as written: no defaults filled in, so that it can be hashed."""

    object: Object
    source: dict[str, Any]
    place: str  # file:line


@dataclass(frozen=True, slots=True)
class Loaded:
    manifests: tuple[Manifest, ...]
    warnings: tuple[str, ...]  # what --lenient left out, and notes; each with its place


def load(text: str, file: str, *, lenient: bool = False, namespace: str = DEFAULT_NAMESPACE) -> Loaded:
    """The objects in `text`. `file` is only a name for messages.

    `namespace` is given to objects that name none (and then appears in their source). ManifestError: see above;
    its `hint` says what `lenient` would run, where that would help.
    """
    documents, errors = scan(text, file)
    reader = _FileReader(file, lenient, namespace)
    for document in documents:
        if len(reader.errors) > MOST_PROBLEMS:
            reader.errors.append(ManifestError("too many problems: the rest was not read", file=file))
            break
        reader.read(document, document.data, ())
    errors += reader.errors
    if errors:
        raise _together(errors, reader)
    return Loaded(tuple(reader.manifests), tuple(reader.warnings))


def parse_object(kind: str, data: dict[str, Any]) -> Object:
    """An object from its `source` or its dump(), which were checked when they came in: data of our own store."""
    try:
        return KINDS[kind].model_validate(data, by_alias=True, by_name=False)
    except (KeyError, ValidationError) as error:
        raise ManifestError(
            f"the stored {kind} cannot be read by this version", hint="was it stored by a newer sshoal?"
        ) from error


def parse_template(data: Mapping[str, Any]) -> PodTemplateSpec:
    """A pod template as written, from our own store. Raises ManifestError as parse_object does."""
    try:
        return PodTemplateSpec.model_validate(dict(data), by_alias=True, by_name=False)
    except ValidationError as error:
        raise ManifestError(
            "a stored pod template cannot be read by this version", hint="was it stored by a newer sshoal?"
        ) from error


@dataclass(slots=True)
class _FileReader:
    file: str
    lenient: bool
    namespace: str
    manifests: list[Manifest] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[ManifestError] = field(default_factory=list)
    runnable: list[str] = field(default_factory=list)  # what --lenient would run
    hopeless: bool = False  # some problem is beyond --lenient
    _places: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def read(self, document: Document, data: Any, at: Path) -> None:
        """One object, or a List of them, at the path `at` of its document."""
        line = document.line_of(at) if at else document.line
        if not isinstance(data, dict):
            message = f"must be an object with apiVersion, kind and metadata, not {describe(data)}"
            if isinstance(data, list) and data and isinstance(data[0], dict) and "hosts" in data[0]:
                message = "is a playbook, not a manifest: ansible-playbook runs it"
            self._report(document, Shape(problems=[Problem((), message, line)]), at)
        elif isinstance(kind := data.get("kind"), str) and kind.endswith("List") and kind not in KINDS:
            self._read_list(document, data, at)
        elif model := self._model(document, data, at, line):
            self._read_object(model, document, data, at, line)

    def _read_list(self, document: Document, data: dict[str, Any], at: Path) -> None:
        items = data.get("items") or []
        if not isinstance(items, list):
            problem = Problem(("items",), f"must be a list, not {describe(items)}", document.line_of((*at, "items")))
            self._report(document, Shape(problems=[problem]), at)
            return
        for name in data.keys() - {"apiVersion", "kind", "metadata", "items"}:
            problem = Problem((name,), "unknown field: a List has items", document.line_of((*at, name)))
            self._report(document, Shape(problems=[problem]), at)
        for index, item in enumerate(items):
            self.read(document, item, (*at, "items", index))

    def _model(self, document: Document, data: dict[str, Any], at: Path, line: int) -> type[Object] | None:
        problems: list[Problem] = []
        kind, version = data.get("kind"), data.get("apiVersion")
        for name, value in (("apiVersion", version), ("kind", kind)):
            if not isinstance(value, str):
                message = "is required" if value is None else f"must be a text, not {describe(value)}"
                problems.append(Problem((name,), message, document.line_of((*at, name))))
        if isinstance(kind, str) and isinstance(version, str) and (wrong := _kind_problem(kind, version)):
            path, message, foreign = wrong
            where = document.line_of((*at, path))
            problems.append(Problem((path,), message, where, "without object" if foreign else "no"))
        if problems:
            self._report(document, Shape(problems=problems), at)
            return None
        return KINDS[cast(str, kind)]

    def _read_object(self, model: type[Object], document: Document, data: dict[str, Any], at: Path, line: int) -> None:
        older = renewed(data, document, at)
        written = _server_written(model.__name__, data, document, at)
        if not model.namespaced:
            _clear_namespace(model.__name__, data, document, at, written)
        shape = read_shape(model, data, document, at)
        shape.problems += [*older, *written.problems]
        shape.notes += written.notes
        self._report(document, shape, at)
        ruined = any(problem.lenient != "without field" for problem in shape.problems)
        if shape.thing is None or ruined:
            return
        self.runnable.append(title(shape.thing))
        source = copy.deepcopy(data) if document.has_aliases else data
        thing = shape.thing
        if model.namespaced and "namespace" not in source["metadata"] and self.namespace != DEFAULT_NAMESPACE:
            source["metadata"] = {**source["metadata"], "namespace": self.namespace}
            thing = parse_object(model.__name__, source)
        first = self._places.setdefault(thing.key, line)
        if first != line:
            message = f"{model.__name__} {thing.metadata.name} is there twice: first on line {first}"
            self._report(document, Shape(problems=[Problem((), message, line)]), at)
        self.manifests.append(Manifest(thing, source, f"{self.file}:{line}"))

    def _report(self, document: Document, shape: Shape, at: Path) -> None:
        """File what was found. Notes and what `lenient` forgives become warnings, in the order of lines."""
        warnings = [(note.line, (*at, *note.path), note.message) for note in shape.notes]
        for problem in shape.problems:
            path = (*at, *problem.path)
            if self.lenient and problem.lenient != "no":
                what = "this object is left out" if problem.lenient == "without object" else "left out"
                message = f"{problem.message.partition(' (--lenient')[0]}; {what}"
                warnings.append((problem.line, path, message))
            else:
                self.hopeless = self.hopeless or problem.lenient == "no"
                self.errors.append(ManifestError(problem.message, file=self.file, line=problem.line, field=show(path)))
        for line, path, message in sorted(warnings, key=lambda warning: warning[0]):
            self.warnings.append(": ".join(part for part in (f"{self.file}:{line}", show(path), message) if part))


def _together(errors: list[ManifestError], reader: _FileReader) -> ManifestError:
    together = ManifestError.several(sorted(errors, key=lambda error: error.line or sys.maxsize))
    if not reader.hopeless and len(errors) == len(reader.errors):
        together.runnable = tuple(reader.runnable)
        together.hint = lenient_hint(reader.runnable)
    return together


def lenient_hint(runnable: Sequence[str]) -> str:
    """For errors that --lenient would take: what it would run, of all files."""
    names = [*runnable[:_MOST_NAMES], *([f"{len(runnable) - _MOST_NAMES} more"] if len(runnable) > _MOST_NAMES else [])]
    return f"--lenient would run {', '.join(names) or 'nothing'} and leave out the rest"


def title(thing: Object) -> str:
    """As hints name an object."""
    return f"{thing.kind} {thing.metadata.name}"


def _kind_problem(kind: str, version: str) -> tuple[str, str, bool] | None:
    """(field, message, whether Kubernetes has it) when this is no object that sshoal knows."""
    group = version.rpartition("/")[0]
    if kind in KINDS:
        wanted = API_VERSIONS[kind]
        if version in (wanted, VERSIONS.get(kind)):
            return None
        if "." in group and not group.endswith(".k8s.io"):
            return (
                "kind",
                f"{kind} of {shown(version)} is a custom resource: not supported (--lenient leaves it out)",
                True,
            )
        return "apiVersion", f"must be {wanted} for {kind}, not {shown(version)}", False
    if kind in unsupported.KINDS:
        return "kind", f"{kind}: {NOT_YET} (--lenient leaves this object out)", True
    if "." in group:
        return "kind", f"{shown(kind)} of {shown(version)} is not supported (--lenient leaves this object out)", True
    meant = nearest(kind, [*KINDS, *unsupported.KINDS])
    choices = ", ".join(KINDS)
    return "kind", f"{shown(kind)} is not a kind" + (f": did you mean {meant}?" if meant else f": {choices}"), False


def _server_written(kind: str, data: dict[str, Any], document: Document, at: Path) -> Shape:
    """Take out what only an API server writes, with one note that names it."""
    shape = Shape()
    if document.has_nulls:
        drop_nulls(data, document)
    taken: list[str] = []
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return shape
    line = document.line_of(at) if at else document.line
    from_server = "uid" in metadata or "resourceVersion" in metadata
    if data.get("status") is not None:
        if data["status"]:
            taken.append("status")
        document.remove(data, "status")
    for name in unsupported.SERVER_METADATA:
        if name in metadata:
            taken.append(f"metadata.{name}")
            document.remove(metadata, name)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        for name in unsupported.SERVER_ANNOTATIONS:
            if name in annotations:
                taken.append(f"annotation {name}")
                document.remove(annotations, name)
    if owners := metadata.get("ownerReferences"):
        shape.problems.append(_owned(owners, document, at))
    if "ownerReferences" in metadata:
        document.remove(metadata, "ownerReferences")
    spec = data.get("spec")
    if kind == "Namespace" and "spec" in data:  # its finalizers
        taken.append("spec")
        document.remove(data, "spec")
    if kind == "Pod" and from_server and isinstance(spec, dict):
        for name in ("nodeName", "priority"):  # the latter is the value of its priority class
            if spec.get(name):
                taken.append(f"spec.{name}")
                document.remove(spec, name)
    if kind == "PersistentVolumeClaim" and from_server:
        taken += _bound(spec, annotations, document)
    if kind == "Job" and isinstance(spec, dict) and not spec.get("manualSelector"):
        taken += _generated_for_job(spec, document)
    for name, problem in _token_volumes(data, document, at):
        if kind == "Pod" and from_server:
            taken.append(f"volume {shown(name)[1:-1]}")
        else:  # somebody's template asks for it
            shape.problems.append(problem)
    _profile_annotations(data, document, at, shape)
    if kind == "Secret" and data.get("type") == "kubernetes.io/service-account-token":
        message = f"a service account's token: {NOT_YET} (--lenient leaves this object out)"
        shape.problems.append(Problem(("type",), message, document.line_of((*at, "type")), "without object"))
    if taken:
        shape.notes.append(Problem((), f"left out what the API server wrote: {', '.join(taken)}", line))
    return shape


def _clear_namespace(kind: str, data: dict[str, Any], document: Document, at: Path, written: Shape) -> None:
    """Of an object that belongs to none: the API server clears it. What tools write everywhere is no news."""
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(namespace := metadata.get("namespace"), str):
        return
    path = ("metadata", "namespace")
    if namespace not in ("", DEFAULT_NAMESPACE):
        message = f"left out: a {kind} belongs to no namespace"
        written.notes.append(Problem(path, message, document.line_of((*at, *path))))
    document.remove(metadata, "namespace")


def _generated_for_job(spec: dict[str, Any], document: Document) -> list[str]:
    """The selector of a Job and the labels that carry its uid."""
    taken = []
    if "controller-uid" in str(spec.get("selector") or ""):
        taken.append("spec.selector")
        document.remove(spec, "selector")
    template = spec.get("template")
    metadata = template.get("metadata") if isinstance(template, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    if not isinstance(labels, dict):
        return taken
    for name in unsupported.SERVER_JOB_LABELS:
        if name in labels:
            taken.append(f"label {name}")
            document.remove(labels, name)
    return taken


def _owned(owners: Any, document: Document, at: Path) -> Problem:
    first = owners[0] if isinstance(owners, list) else owners
    names = (first.get("kind"), first.get("name")) if isinstance(first, dict) else ()
    owner = " ".join(shown(str(name))[1:-1] for name in names if name) or "another object"
    path = ("metadata", "ownerReferences")
    message = f"belongs to {owner}: apply what made it instead (--lenient leaves this object out)"
    return Problem(path, message, document.line_of((*at, *path)), "without object")


# Where the pod is: in a Pod, in a workload, in a CronJob.
POD_TEMPLATES: tuple[Path, ...] = ((), ("spec", "template"), ("spec", "jobTemplate", "spec", "template"))
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def _profile_annotations(data: dict[str, Any], document: Document, at: Path, shape: Shape) -> None:
    """AppArmor profiles by annotation, as before there was a field: no annotation like others, which mean nothing by themselves."""
    for template in POD_TEMPLATES:
        path: Path = (*template, "metadata", "annotations")
        annotations: Any = data
        for step in path:
            annotations = annotations.get(step) if isinstance(annotations, dict) else None
        for key, value in list(annotations.items()) if isinstance(annotations, dict) else ():
            if not isinstance(key, str) or not key.startswith(_APPARMOR) or value == "runtime/default":
                continue
            here = (*path, key)
            message = f"an AppArmor profile: {NOT_YET} (--lenient runs without it)"
            shape.problems.append(Problem(here, message, document.line_of((*at, *here)), "without field"))
            document.remove(annotations, key)


def _bound(spec: Any, annotations: Any, document: Document) -> list[str]:
    """Which volume of the other cluster a claim has got, and from whom."""
    taken = []
    if isinstance(annotations, dict):
        for name in [key for key in annotations if str(key).startswith(unsupported.SERVER_CLAIM_ANNOTATIONS)]:
            taken.append(f"annotation {shown(name)[1:-1]}")
            document.remove(annotations, name)
    if isinstance(spec, dict) and spec.get("volumeName"):
        taken.append("spec.volumeName")
        document.remove(spec, "volumeName")
    return taken


def _token_volumes(data: dict[str, Any], document: Document, at: Path) -> list[tuple[str, Problem]]:
    """(name, problem) of a service account's token, mounted by the API server: nothing here would accept it, so pods run without."""
    path: Path = ("spec",) if data.get("kind") == "Pod" else ("spec", "template", "spec")
    spec: Any = data
    for step in path:
        spec = spec.get(step) if isinstance(spec, dict) else None
    volumes = spec.get("volumes") if isinstance(spec, dict) else None
    found: list[tuple[str, Problem]] = []
    if not isinstance(volumes, list):
        return found
    for index in reversed(range(len(volumes))):
        name = volumes[index].get("name") if isinstance(volumes[index], dict) else None
        if not isinstance(name, str) or not name.startswith("kube-api-access-"):
            continue
        here = (*path, "volumes", index)
        message = f"a service account's token: {NOT_YET} (--lenient runs without it)"
        found.append((name, Problem(here, message, document.line_of((*at, *here)), "without field")))
        document.remove(volumes, index)
        for containers in (spec.get("containers"), spec.get("initContainers")):
            for container in containers if isinstance(containers, list) else ():
                _drop_mounts(container, name, document)
    return found


def _drop_mounts(container: Any, volume: str, document: Document) -> None:
    mounts = container.get("volumeMounts") if isinstance(container, dict) else None
    if isinstance(mounts, list):
        for index in reversed(range(len(mounts))):
            if isinstance(mounts[index], dict) and mounts[index].get("name") == volume:
                document.remove(mounts, index)
