"""YAML and JSON text → plain data with line numbers, safely; and YAML inventories → Builder. No I/O.

Scalars mean what they mean to Ansible (YAML 1.1). Refused, each with file and line: more than one document, nesting deeper than 64,
more nodes than a limit once aliases and merge keys are written out, duplicate keys, and every tag but YAML's own plain ones, `!vault`
and `!unsafe`. Raises InventoryError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from controller.act.inventory.builder import Builder, Place
from controller.act.inventory.ranges import expand
from controller.model.errors import InventoryError
from controller.model.inventory import Unsafe, VaultText
from controller.model.yamlscan import is_too_deep

DEPTH_MAX = 64
_TOO_DEEP = f"nested more than {DEPTH_MAX} deep"
NODES_MAX = 500_000
NUMBER_CHARS_MAX = 1_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_YAML_TAG + name for name in ("null", "bool", "int", "float", "timestamp"))
_STRINGS = frozenset(_YAML_TAG + name for name in ("str", "value"))  # value: a lone '='
_NUMBERS = frozenset(_YAML_TAG + name for name in ("int", "float"))
_VAULT_TAGS = ("!vault", "!vault-encrypted")
_GROUP_KEYS = ("vars", "children", "hosts")

OpenVault = Callable[[str, Place], str]  # ciphertext and its place → plain text


class Located(dict[Any, Any]):
    """A mapping that knows the line of each key."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, int] = {}


def load(text: str, file: str, open_vault: OpenVault) -> Any:
    """The one document in `text` as plain data; None if it is empty. Mappings are Located. Raises InventoryError."""
    if text.lstrip()[:1] == "{":
        try:
            return _load_json(text, file)
        except ValueError:
            pass  # flow-style YAML also starts with a brace
    try:
        root = _compose(text, file)
        return None if root is None else _Construct(file, open_vault).value(root)
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from None


def read(text: str, file: str, builder: Builder, open_vault: OpenVault) -> None:
    """Adds a YAML inventory to the builder. Raises InventoryError."""
    data = load(text, file, open_vault)
    place = Place(file)
    if not data:
        raise place.error("the file is empty", hint="start with: all: {hosts: {…}}")
    if not isinstance(data, Located):
        raise place.error("the top level is not a mapping of groups", hint="start with: all: {hosts: {…}}")
    if data.get("plugin"):
        raise Place(file, data.lines.get("plugin", 0)).error(
            f"this is the configuration of the inventory plugin {data['plugin']!r}; plugins are not supported",
            hint="write its result to a file: ansible-inventory -i … --list --export --yaml > hosts.yml",
        )
    for name, content in data.items():
        _group(name, content, Place(file, data.lines.get(name, 0)), builder)


def plain(value: Any) -> Any:
    """A value without the lines: what becomes a variable is ordinary data."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _group(name: object, content: Any, place: Place, builder: Builder) -> str:
    group = builder.add_group(name, place)
    if content is None:
        return group
    if not isinstance(content, Located):
        raise place.error(f"group {group!r} is not a mapping", hint="its keys are hosts, children and vars")
    for key, section in content.items():
        at = Place(place.file, content.lines.get(key, 0))
        if isinstance(section, str) and key in _GROUP_KEYS:
            lone = Located()
            lone[section] = None
            lone.lines[section] = at.line
            section = lone
        if section is None:
            continue
        if key not in _GROUP_KEYS:
            builder.warnings.append(
                f"{at}: {key!r} in group {group!r} is ignored; its keys are hosts, children and vars"
            )
            continue
        if not isinstance(section, Located):
            raise at.error(f"{key} of group {group!r} is not a mapping", hint="end each name with a colon")
        _section(group, key, section, at, builder)
    return group


def _section(group: str, key: str, section: Located, at: Place, builder: Builder) -> None:
    for name, value in section.items():
        place = Place(at.file, section.lines.get(name, at.line))
        if key == "vars":
            builder.set_group_variable(group, name, plain(value), place)
        elif key == "children":
            builder.add_child(group, _group(name, value, place, builder), place)
        else:
            _hosts(group, name, value or {}, place, builder)


def _hosts(group: str, pattern: object, variables: Any, place: Place, builder: Builder) -> None:
    if not isinstance(pattern, str):
        raise place.error(f"the host name {pattern!r} is not a string", hint="quote it")
    if not isinstance(variables, Mapping):
        raise place.error(f"the variables of {pattern!r} are not a mapping", hint="write {name: value}")
    try:
        names, port = expand(pattern)
    except ValueError as error:
        raise place.error(f"{pattern!r}: {error}") from None
    lines = variables.lines if isinstance(variables, Located) else {}
    values = {name: plain(value) for name, value in variables.items()}
    for host in names:
        builder.add_host(host, group, port, place)
        for name, value in values.items():
            builder.set_host_variable(host, name, value, Place(place.file, lines.get(name, place.line)))


def _compose(text: str, file: str) -> Any:
    """The node tree, after a pass over the events alone that holds the limits: composing recurses as deep as the text nests."""
    depth = nodes = 0
    documents = 0
    sizes: dict[str, int] = {}  # what each anchor stands for, written out
    open_anchors: list[tuple[str | None, int]] = []
    events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Place(file, line).error("a second document; an inventory is one")
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
            nodes += 1
            open_anchors.append((event.anchor, nodes))
            if depth > DEPTH_MAX:
                raise Place(file, line).error(_TOO_DEEP)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
            anchor, start = open_anchors.pop()
            if anchor:
                sizes[anchor] = nodes - start + 1
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise Place(file, line).error(
                    f"the alias *{event.anchor} refers to nothing before it, or to what contains it"
                )
            nodes += sizes[event.anchor]
        if nodes > NODES_MAX:
            raise Place(file, line).error(f"more than {NODES_MAX} values once aliases are written out")
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Construct:
    """Nodes → data. Recursion is bounded: the depth was checked before."""

    def __init__(self, file: str, open_vault: OpenVault) -> None:
        self._file = file
        self._open_vault = open_vault
        self._scalars = yaml.SafeLoader("")
        self._done: dict[int, Any] = {}  # by node: an alias yields the same object
        self._keys_merged = 0

    def value(self, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) not in self._done:
            self._done[id(node)] = self._mapping(node) if isinstance(node, yaml.MappingNode) else self._sequence(node)
        return self._done[id(node)]

    def _scalar(self, node: Any) -> Any:
        tag = node.tag
        if tag in _STRINGS:
            return node.value
        if tag in _VAULT_TAGS:
            place = self._place(node)
            return VaultText(node.value, lambda ciphertext: self._open_vault(ciphertext, place))
        if tag == "!unsafe":
            return Unsafe(node.value)
        if tag not in _SCALARS:
            raise self._refused(node)
        if tag in _NUMBERS and len(node.value) > NUMBER_CHARS_MAX:
            raise self._place(node).error(f"a number of more than {NUMBER_CHARS_MAX} characters")
        try:
            return self._scalars.construct_object(node)
        except (ValueError, OverflowError, KeyError, AttributeError):
            raise self._place(node).error(f"{node.value[:40]!r} is not a valid {tag.removeprefix(_YAML_TAG)}") from None

    def _sequence(self, node: Any) -> list[Any]:
        if node.tag == "!unsafe":
            return [_unsafe(self.value(item)) for item in node.value]
        if node.tag != _YAML_TAG + "seq":
            raise self._refused(node)
        return [self.value(item) for item in node.value]

    def _mapping(self, node: Any) -> Any:
        if node.tag == _YAML_TAG + "set":
            return {self._key(key) for key, _ in node.value}
        if node.tag not in (_YAML_TAG + "map", "!unsafe"):
            raise self._refused(node)
        own, merged = Located(), Located()
        for key_node, value_node in node.value:
            if key_node.tag == _YAML_TAG + "merge":
                self._merge(value_node, merged)
                continue
            key = self._key(key_node)
            if key in own:
                raise self._place(key_node).error(
                    f"the key {key!r} is there twice", hint=f"first in line {own.lines[key]}"
                )
            own[key] = _unsafe(self.value(value_node)) if node.tag == "!unsafe" else self.value(value_node)
            own.lines[key] = key_node.start_mark.line + 1
        if not merged:
            return own
        merged.update(own)
        merged.lines.update(own.lines)
        return merged

    def _merge(self, node: Any, into: Located) -> None:
        """`<<: *base` and `<<: [*first, *second]`: what is named earlier wins, and what the mapping itself says wins over both."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in reversed(parts):
            if not isinstance(part, yaml.MappingNode):
                raise self._place(part).error("a merge key '<<' takes a mapping or a list of mappings")
            values = self.value(part)
            self._keys_merged += len(values)
            if self._keys_merged > NODES_MAX:
                raise self._place(node).error(f"more than {NODES_MAX} values once merge keys are written out")
            into.update(values)
            into.lines.update(values.lines)

    def _key(self, node: Any) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._place(node).error("a key that is itself a mapping or a list")
        key = self._scalar(node)
        if not isinstance(key, str | int | float | bool | None):
            raise self._place(node).error("a key that is no plain value", hint="quote it")
        return key

    def _refused(self, node: Any) -> InventoryError:
        return self._place(node).error(
            f"the tag {node.tag} is refused", hint="tags of inventories are !vault and !unsafe"
        )

    def _place(self, node: Any) -> Place:
        return Place(self._file, node.start_mark.line + 1)


def _unsafe(value: Any) -> Any:
    if isinstance(value, str):
        return Unsafe(value)
    if isinstance(value, list):
        return [_unsafe(item) for item in value]
    if isinstance(value, Located):
        for key in value:
            value[key] = _unsafe(value[key])
    return value


def _load_json(text: str, file: str) -> Any:
    """JSON, which knows no lines. Raises ValueError when it is none, InventoryError for duplicate keys."""

    def mapping(pairs: list[tuple[str, Any]]) -> Located:
        found = Located()
        for key, value in pairs:
            if key in found:
                raise Place(file).error(f"the key {key!r} is there twice in one object")
            found[key] = value
        return found

    if _json_depth(text) > DEPTH_MAX:
        raise Place(file).error(_TOO_DEEP)
    return json.loads(text, object_pairs_hook=mapping)


def _json_depth(text: str) -> int:
    """How deep brackets nest; those inside strings count too, which errs on the safe side for real inventories' depths."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _syntax_error(error: yaml.YAMLError, file: str) -> InventoryError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = Place(file, mark.line + 1 if mark else 0)
    if is_too_deep(error):
        return place.error(_TOO_DEEP)
    return place.error(f"this is not valid YAML: {' '.join(str(problem).split())}")
