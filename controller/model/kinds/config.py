"""Namespace, ConfigMap, Secret. Pure."""

from __future__ import annotations

import base64
from typing import ClassVar, Literal

from pydantic import Field

from controller.model.kinds.meta import Bool, ClusterObjectMeta, ConfigKey, Object, ObjectMeta


class Namespace(Object):
    namespaced: ClassVar[bool] = False

    api_version: Literal["v1"] = "v1"
    kind: Literal["Namespace"] = "Namespace"
    metadata: ClusterObjectMeta


class ConfigMap(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: ObjectMeta
    data: dict[ConfigKey, str] = Field(default_factory=dict)
    binary_data: dict[ConfigKey, str] = Field(default_factory=dict)  # base64
    immutable: Bool | None = None

    def contents(self) -> dict[str, bytes]:
        """Every key with its bytes, as a volume shows them."""
        files = {key: value.encode() for key, value in self.data.items()}
        return files | {key: base64.b64decode(value) for key, value in self.binary_data.items()}


class Secret(Object):
    """Values never appear in repr(): a traceback must not show them."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[ConfigKey, str] = Field(default_factory=dict, repr=False)  # base64
    string_data: dict[ConfigKey, str] = Field(default_factory=dict, repr=False)
    immutable: Bool | None = None

    def contents(self) -> dict[str, bytes]:
        """Every key with its decoded bytes; stringData wins over data, as in Kubernetes."""
        files = {key: base64.b64decode(value) for key, value in self.data.items()}
        return files | {key: value.encode() for key, value in self.string_data.items()}
