"""PersistentVolumeClaim with Kubernetes' defaults (core/v1). Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.kinds.meta import (
    Annotations,
    DnsLabel,
    DnsSubdomain,
    Labels,
    Model,
    Object,
    ObjectMeta,
    Quantity,
)

AccessMode = Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]


class VolumeResourceRequirements(Model):
    requests: dict[Literal["storage"], Quantity] = Field(default_factory=dict)
    limits: dict[Literal["storage"], Quantity] = Field(default_factory=dict)


class PersistentVolumeClaimSpec(Model):
    """`storage_class_name`: None takes the default class; "" asks for a volume that a person has made, as in Kubernetes."""

    access_modes: tuple[AccessMode, ...] = ()
    resources: VolumeResourceRequirements = VolumeResourceRequirements()
    storage_class_name: str | None = None
    volume_name: str = ""
    volume_mode: Literal["Filesystem"] = "Filesystem"


class ClaimMeta(ObjectMeta):
    """Of a claim. Its one finalizer, which Kubernetes writes into each, says what holds for all of ours."""


class PersistentVolumeClaim(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    metadata: ClaimMeta
    spec: PersistentVolumeClaimSpec


class ClaimTemplateMeta(Model):
    """The name is that of a volume of the pods, too. A namespace says nothing: claims are made where their set is."""

    name: DnsLabel
    namespace: DnsSubdomain | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class PersistentVolumeClaimTemplate(Model):
    """One of a StatefulSet's volumeClaimTemplates."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    metadata: ClaimTemplateMeta
    spec: PersistentVolumeClaimSpec
