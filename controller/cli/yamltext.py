"""Values → YAML text that reads back as the same values. Loaded only where YAML is written."""

from __future__ import annotations

from typing import Any

import yaml

from controller.model.yamlscan import OLD_TRUTHS, read_plain


class _Dumper(yaml.SafeDumper):
    """Strings are quoted that some reader takes for something else: Unicode's line breaks, numbers by YAML 1.2 (1e3), truth by 1.1 (y)."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    breaks = any(mark in text for mark in "\x85\u2028\u2029")
    style = '"' if breaks or read_plain(text) != text or text.lower() in OLD_TRUTHS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def dump(value: Any, *, sort_keys: bool = False) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, default_flow_style=False, allow_unicode=True))
