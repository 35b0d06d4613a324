"""Why a node is out for a pod. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """`near` orders the nodes within one kind of reason: of many, the nearest miss is told."""

    kind: str
    text: str
    near: int = 0
