"""Names, uids and hashes: deterministic, so that the same input gives the same plan. Pure.

These are records that can't change later (DESIGN §4b): an upgrade that adds a default restarts nothing, since hashes are taken over the
template as the user wrote it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

# Kubernetes' alphabet for generated names: no vowels, so that no words appear, and nothing that is easily misread.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NAMESPACE = uuid.UUID("8a1d6f0e-5f0b-5c1e-9a57-1f3f2f7f6c11")
_SUFFIX_LENGTH = 5
OWN_NAME = "*"  # in the name of a claim, where a template holds it: the name of the pod
_NAME_LENGTH_MAX = 63  # a pod's name is its host name


def child_uid(owner_uid: str, what: str) -> str:
    """The uid of an object made by a controller: from its owner's and a stored counter or hash. Never reused."""
    return str(uuid.uuid5(_NAMESPACE, f"{owner_uid}/{what}"))


def pod_name(owner_name: str, owner_uid: str, counter: int) -> str:
    """`web-6d4cf56db6` and the 12th pod made → `web-6d4cf56db6-x7k2p`."""
    base = owner_name[: _NAME_LENGTH_MAX - _SUFFIX_LENGTH - 1].rstrip("-.")
    return f"{base}-{_word(f'{owner_uid}/{counter}', _SUFFIX_LENGTH)}"


def claim_name(written: str, pod_name: str) -> str:
    """`data-*` of the pod db-0 → `data-db-0`; other names stand for themselves."""
    return written.replace(OWN_NAME, pod_name)


def volume_name(cluster_id: str, claim_uid: str, number: int) -> str:
    """The name on its node of the volume that is made as the `number`th of a claim."""
    return f"sshoal-{cluster_id}-{claim_uid}-{number}"


def template_hash(template: Mapping[str, Any]) -> str:
    """pod-template-hash over the template as written: key order and defaults do not count."""
    return _word(_canonical(template), 10)


def content_hash(content: Mapping[str, Any]) -> str:
    """Hash of a config map's or secret's content, or of a wanted set."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:32]


def _word(text: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
