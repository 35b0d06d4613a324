"""Writes docs/compatibility.md from the models: each field of each supported kind, and what becomes of it.

    .venv/bin/python tools/compatibility.py            # writes the page
    .venv/bin/python tools/compatibility.py --check    # exit 1 when it is not current

In: the models of controller/model/kinds, the table of what they refuse (unsupported.py), and tests/lab/observed.yaml, which names the lab
test that sees a field's effect on real hosts. A supported field without one is an error.
"""

from __future__ import annotations

import sys
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from controller.model.kinds import API_VERSIONS, KINDS, unsupported  # noqa: E402
from controller.model.kinds.storage import PersistentVolumeClaimTemplate  # noqa: E402
from controller.model.older import VERSIONS  # noqa: E402

PAGE = ROOT / "docs" / "compatibility.md"
OBSERVED = ROOT / "tests" / "lab" / "observed.yaml"

HEAD = """\
# Compatibility with Kubernetes

This page is generated from the models (`tools/compatibility.py`); a test keeps it current. Field by field:

- **supported**: means here what it means in Kubernetes. The test behind it observes the effect on real hosts, with real Podman. Tests are
  those of `tests/lab`; a name that ends in `.yaml` is a manifest of `tests/cases/manifests/kubernetes`, run by `test_cluster_manifests.py`.
- **refused**: Kubernetes has the field, sshoal does not; a manifest with it is an error, and `--lenient` runs the object without it.
- **refused, this X too**: the same, but `--lenient` leaves out all of the X that holds the value.
- **refused, object too**: the same, but without this field the object would do harm, so that `--lenient` leaves it out.
- **refused unless X**: X is what happens anyway, so a manifest may say it.
- **only X**: another value is an error; this one is what happens anyway.
- **no effect**: it is about something that never happens here.

What deviates although it is supported is listed at the end of each kind, and in [limits](limits.md). A type that several kinds share is
shown at the first. `metadata` of all kinds has `name`, `namespace`, `labels` and `annotations`; what an API server writes there is left out
with a note.
"""


def page() -> str:
    """The whole text."""
    observed = load_observed()
    parts = [HEAD]
    seen: set[type[BaseModel]] = set()
    for kind in KINDS:
        older = f"; `{VERSIONS[kind]}` is read as that" if kind in VERSIONS else ""
        parts.append(f"## {kind}\n\n`{API_VERSIONS[kind]}`{older}\n")
        for name, model in types_below(KINDS[kind], kind):
            if model in seen:
                continue
            seen.add(model)
            parts += _table(name, model, observed)
        if kind in observed["deviations"]:
            parts.append("Deviations:\n\n" + "".join(f"- {line}\n" for line in observed["deviations"][kind]))
    missing = ", ".join(sorted(unsupported.KINDS))
    parts.append(f"## Kinds that are refused\n\n{missing}, and every custom resource.\n")
    return "\n".join(parts)


def types_below(model: type[BaseModel], name: str) -> list[tuple[str, type[BaseModel]]]:
    """A kind and every type that its fields lead to, each once, in the order of the fields."""
    found: dict[type[BaseModel], str] = {}

    def visit(name: str, model: type[BaseModel]) -> None:
        if model in found or name in ("ObjectMeta", "ClusterObjectMeta", "PriorityClassMeta", "ClaimMeta"):
            return
        found[model] = name
        for info in model.model_fields.values():
            for inner in models_in(info.annotation):
                visit(inner.__name__, inner)

    visit(name, model)
    return [(name, model) for model, name in found.items()]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def load_observed() -> dict[str, Any]:
    """{"fields": {"Type.field": test}, "no_effect": ["Type.field"], "deviations": {kind: [text]}}.

    Raises ValueError for a field that is named twice.
    """
    data = yaml.safe_load(OBSERVED.read_text())
    fields: dict[str, str] = {}
    for test, names in data["tests"].items():
        for name in names:
            if name in fields:
                raise ValueError(f"{name} is named by {fields[name]} and {test}")
            fields[name] = test
    return {"fields": fields, "no_effect": data["no_effect"], "deviations": data["deviations"]}


def fields_of(model: type[BaseModel]) -> list[str]:
    """Names as manifests have them, without what only tells the kind."""
    names = [info.alias or name for name, info in model.model_fields.items()]
    telling: tuple[str, ...] = ("apiVersion", "kind", "metadata") if hasattr(model, "namespaced") else ()
    if model is PersistentVolumeClaimTemplate:
        telling = ("apiVersion", "kind")
    return [name for name in names if name not in telling]


def only_value(model: type[BaseModel], field: str) -> str:
    """The one value that a field may have; "" when there are several."""
    info = next(info for name, info in model.model_fields.items() if field in (info.alias, name))
    values = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is typing.Literal else ()
    return str(values[0]) if len(values) == 1 else ""


def _table(name: str, model: type[BaseModel], observed: dict[str, Any]) -> list[str]:
    rows = []
    for field in fields_of(model):
        test = observed["fields"].get(f"{model.__name__}.{field}")
        only = only_value(model, field)
        if test:
            rows.append((field, "supported", f"`{test}`"))
        elif only:
            rows.append((field, f"only `{only}`", ""))
        elif f"{model.__name__}.{field}" in observed["no_effect"]:
            rows.append((field, "no effect", ""))
        else:
            raise ValueError(f"{model.__name__}.{field}: name the lab test that sees its effect in {OBSERVED.name}")
    for field, meaning in sorted(unsupported.FIELDS.get(model.__name__, {}).items()):
        rows.append((field, _refusal(meaning, model.__name__), ""))
    for field, (meaning, values) in sorted(unsupported.VALUES.get(model.__name__, {}).items()):
        rows.append((field, f"{_refusal(meaning, model.__name__)}: {', '.join(f'`{value}`' for value in values)}", ""))
    if not rows:
        return []
    lines = [f"### {name}\n", "| Field | | Observed by |", "|---|---|---|"]
    lines += [f"| `{field}` | {status} | {test} |" for field, status, test in rows]
    return ["\n".join(lines) + "\n"]


def _refusal(meaning: Any, holder: str) -> str:
    if meaning is unsupported.NEVER:
        return "refused"
    if meaning is unsupported.WHOLE:
        return f"refused, this {holder} too"
    if meaning is unsupported.RUINS:
        return "refused, object too"
    if meaning is unsupported.NAMED:
        return "no effect beside a name, refused without one"
    if meaning is unsupported.MOOT:
        return "no effect"
    shown = "empty" if meaning == {} else str(meaning).lower() if isinstance(meaning, bool) else str(meaning)
    return f"refused unless `{shown}`"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.is_file() and PAGE.read_text() == text:
        return 0
    print(
        "docs/compatibility.md is not what the models say: run .venv/bin/python tools/compatibility.py", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
