"""Secrets at rest: values are sealed with a key that lies outside the store. In: plain values. Out: sealed bytes, keyed hashes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path

from controller.act.wholefile import sync_directory, write_whole
from controller.model.errors import StoreError
from nodeagent.protocol import SecretValue

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Sealer:
    """AES-256-GCM under the key of one context. The secret's name is bound in, so that sealed values can't be swapped."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path, *, create: bool = False) -> Sealer:
        """Reads the key file; with `create` makes it, 0600, where there is none.

        Raises StoreError when it is missing, no key, or cannot be made.
        """
        if create and not path.exists():
            _make_key(path)
        try:
            key = base64.b64decode(path.read_bytes(), validate=False)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"the key of the secrets cannot be read: {path}", hint="restore it: secrets cannot be read without"
            ) from error
        if len(key) != _KEY_BYTES:
            raise StoreError(
                f"the key of the secrets is damaged: {path}", hint="restore it: secrets cannot be read without"
            )
        return cls(key)

    def hash(self, data: Mapping[str, str]) -> str:
        """A hash that changes with the content and tells nothing about it (keyed: short secrets can't be guessed from it)."""
        text = json.dumps(data, sort_keys=True).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]

    def seal(self, name: str, data: Mapping[str, str]) -> tuple[str, bytes]:
        """{key: base64 value} → (hash, sealed bytes)."""
        # 20 ms to import, and most commands see no secret
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        return self.hash(data), nonce + AESGCM(self._key).encrypt(nonce, json.dumps(data).encode(), name.encode())

    def unseal(self, name: str, digest: str, sealed: bytes) -> SecretValue:
        """Raises StoreError when the bytes are damaged or were sealed under another key or name."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            plain = AESGCM(self._key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise StoreError(f"secret {name} cannot be unsealed with this context's key") from error
        return SecretValue(digest, json.loads(plain))


def _make_key(path: Path) -> None:
    """Whole or not at all, and never over one that another command has made meanwhile. Raises StoreError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_whole(fresh, base64.b64encode(os.urandom(_KEY_BYTES)).decode() + "\n", mode=0o600)
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"the key of the secrets cannot be made: {path}: {error.strerror or error}",
            hint="free some disk space, or see whose it is",
        ) from error
