"""What all kinds share: the base model, metadata, selectors, and the scalar types with Kubernetes' syntax rules. Pure.

Models are the *shape* of Kubernetes objects with its defaults. What several fields must agree on is in check.py.
Messages of the validators here complete a sentence that begins with the field's path.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel

from controller.model import quantity

DEFAULT_NAMESPACE = "default"


class Model(BaseModel):
    """Frozen, strict about names; Python has snake_case, `dump()` gives Kubernetes' camelCase back."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # a schema is built when it is first used: the command line starts quicker
    )

    def dump(self) -> dict[str, Any]:
        """JSON data with Kubernetes' names: defaults filled in, and, as Kubernetes writes it, nothing that is empty.

        Reading it again gives an equal object.
        """
        data = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            plain = _plain(value)
            # Only an empty value that reading would give again is left out: `emptyDir: {}` says something.
            if plain or value != field.get_default(call_default_factory=True, validated_data=self.__dict__):
                data[field.alias or name] = plain
        return data


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.dump()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


# --- scalars -------------------------------------------------------------------------------------------------------

_LABEL_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def check_dns_label(text: str) -> str:
    """RFC 1123 label, as container, volume and namespace names must be. ValueError otherwise."""
    if len(text) > 63 or not _DNS_LABEL.fullmatch(text):
        raise ValueError(
            f"{shown(text)} must be 1–63 lower-case letters, digits or '-', and begin and end with a letter or digit"
        )
    return text


def check_dns_subdomain(text: str) -> str:
    """RFC 1123 subdomain, as the names of most objects must be. ValueError otherwise."""
    if len(text) > 253 or not _DNS_SUBDOMAIN.fullmatch(text):
        raise ValueError(
            f"{shown(text)} must be 1–253 lower-case letters, digits, '-' or '.', "
            "and every part between dots must begin and end with a letter or digit"
        )
    return text


def check_label_key(text: str) -> str:
    """`name` or `prefix/name`. ValueError otherwise."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        raise ValueError(f"key {shown(text)}: the part before '/' must be a DNS name such as example.com")
    if len(name) > 63 or not _LABEL_PART.fullmatch(name):
        raise ValueError(
            f"key {shown(text)} must be 1–63 letters, digits, '-', '_' or '.' (after an optional prefix and '/'), "
            "and begin and end with a letter or digit"
        )
    return text


def check_label_value(text: str) -> str:
    """Up to 63 characters of label syntax, or empty. ValueError otherwise."""
    if text and (len(text) > 63 or not _LABEL_PART.fullmatch(text)):
        raise ValueError(
            f"value {shown(text)} must be at most 63 letters, digits, '-', '_' or '.', "
            "and begin and end with a letter or digit"
        )
    return text


def is_more_than_all(amount: int | str) -> bool:
    """Whether it is a percentage above 100 %."""
    return isinstance(amount, str) and int(amount.removesuffix("%")) > 100


def check_port_name(text: str) -> str:
    """IANA service name: at most 15 characters, one letter at least. ValueError otherwise."""
    fits = len(text) <= 15 and _PORT_NAME.fullmatch(text) and "--" not in text and any(c.isalpha() for c in text)
    if not fits:
        raise ValueError(
            f"{shown(text)} must be 1–15 lower-case letters, digits or single '-', with one letter at least"
        )
    return text


def check_config_key(text: str) -> str:
    """A key of a ConfigMap or Secret; it becomes a file name. ValueError otherwise."""
    if len(text) > 253 or not _CONFIG_KEY.fullmatch(text) or text == "." or text.startswith(".."):
        raise ValueError(
            f"key {shown(text)} must be 1–253 letters, digits, '-', '_' or '.', and not '.' or begin with '..'"
        )
    return text


def _check_quantity(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError('must be a quantity such as "250m" or "1Gi"')
    quantity.memory_bytes(value)
    return value if isinstance(value, str) else repr(value)


def _check_percent_or_count(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 2**31:
            raise ValueError("must be 0–2147483647 or a percentage")
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}%", value):
        raise ValueError('must be a number such as 1 or a percentage such as "25%"')
    return value


def _check_port_or_name(value: Any) -> int | str:
    if isinstance(value, str):
        return check_port_name(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a port number or the name of a port")
    return _check_port(value)


def _check_port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ValueError("must be a port: 1–65535")
    return value


def shown(text: str) -> str:
    """For messages: quoted, with control and bidirectional characters escaped, and of bounded length."""
    return ascii(text) if len(text) <= 80 else f"{text[:80]!a}…"


Bool = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
Replicas = Annotated[int, Strict(), Field(ge=0, le=quantity.REPLICAS_MAX)]
Seconds = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
Id = Annotated[int, Strict(), Field(ge=0, le=2**31 - 1)]
Mode = Annotated[int, Strict(), Field(ge=0, le=0o777)]
Port = Annotated[int, Strict(), AfterValidator(_check_port)]
PortOrName = Annotated[int | str, BeforeValidator(_check_port_or_name)]
PercentOrCount = Annotated[int | str, BeforeValidator(_check_percent_or_count)]
Quantity = Annotated[str, BeforeValidator(_check_quantity)]
DnsLabel = Annotated[str, AfterValidator(check_dns_label)]
DnsSubdomain = Annotated[str, AfterValidator(check_dns_subdomain)]
LabelKey = Annotated[str, AfterValidator(check_label_key)]
LabelValue = Annotated[str, AfterValidator(check_label_value)]
PortName = Annotated[str, AfterValidator(check_port_name)]
ConfigKey = Annotated[str, AfterValidator(check_config_key)]
Labels = dict[LabelKey, LabelValue]
Annotations = dict[LabelKey, str]


# --- metadata ------------------------------------------------------------------------------------------------------


class ObjectMeta(Model):
    """Of a namespaced object."""

    name: DnsSubdomain
    namespace: DnsLabel = DEFAULT_NAMESPACE
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class ClusterObjectMeta(Model):
    """Of an object that belongs to no namespace; `namespace` is then empty."""

    name: DnsLabel
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    namespace: Literal[""] = ""


class TemplateMeta(Model):
    """Of a pod template. Kubernetes accepts a name here and never uses it; so do we."""

    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    name: str | None = None
    namespace: str | None = None


class Object(Model):
    """Base of every kind that stands by itself in a manifest."""

    namespaced: ClassVar[bool] = True

    api_version: str
    kind: str
    metadata: ObjectMeta | ClusterObjectMeta

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name): what names the object within a cluster."""
        return (self.kind, self.metadata.namespace, self.metadata.name)


# --- selectors -----------------------------------------------------------------------------------------------------


class LabelRequirement(Model):
    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[LabelValue, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(Model):
    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether every requirement holds. An empty selector matches everything, as in Kubernetes."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )
