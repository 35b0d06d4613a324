"""Ansible Vault: opens `$ANSIBLE_VAULT;1.1` and `1.2` (AES256) texts.

Format, from ansible-core's documentation and its output: a header line; then hex of (hex salt, hex HMAC, hex ciphertext, one a line).
PBKDF2-HMAC-SHA256, 10,000 rounds, gives the AES-256 key, the HMAC-SHA256 key and the counter's start; padding is PKCS#7.
Passwords and plain texts are in no error and no repr.
"""

from __future__ import annotations

import binascii
import hmac
import os
from collections.abc import Callable, Sequence

from controller.act.inventory.builder import Place
from controller.act.userpath import user_path, vault_id_parts
from controller.model.errors import InventoryError

HEADER = "$ANSIBLE_VAULT"
ROUNDS = 10_000
PASSWORD_FILE_BYTES_MAX = 64 * 1024

Prompt = Callable[[str], str]  # vault id → password


class VaultKeys:
    """Passwords by vault id, fetched when first needed. An id may have several; a text is tried with those of its own id first."""

    def __init__(self) -> None:
        self._sources: list[tuple[str, Callable[[], bytes]]] = []
        self._passwords: dict[int, bytes] = {}
        self._opened: dict[str, str] = {}

    @classmethod
    def from_specs(cls, specs: Sequence[str], prompt: Prompt | None = None) -> VaultKeys:
        """As Ansible's --vault-id: `file`, `id@file`, `id@prompt`, `prompt`. Files are read when a text needs them."""
        keys = cls()
        for spec in specs:
            label, source = vault_id_parts(spec)
            label = label or "default"
            if source != "prompt":
                keys.add_file(label, source)
            elif prompt is not None:
                keys.add_prompt(label, prompt)
            else:
                raise InventoryError(f"the vault id {label!r} wants a prompt, and nobody can be asked here")
        return keys

    def add_file(self, label: str, path: str) -> None:
        self._sources.append((label, lambda: _password_of(path)))

    def add_prompt(self, label: str, prompt: Prompt) -> None:
        self._sources.append((label, lambda: prompt(label).encode()))

    def open(self, text: str, place: Place) -> str:
        """The plain text of a vaulted one. Raises InventoryError: malformed, no password, or none that fits."""
        if text not in self._opened:
            self._opened[text] = self._open(text, place)
        return self._opened[text]

    def __repr__(self) -> str:
        return f"VaultKeys({', '.join(label for label, _ in self._sources)})"

    def _open(self, text: str, place: Place) -> str:
        label, salt, signature, ciphertext = _parse(text, place)
        if not self._sources:
            raise place.error("this is vaulted and no vault password is given", hint="give --vault-id id@file")
        order = sorted(range(len(self._sources)), key=lambda index: self._sources[index][0] != label)
        for index in order:
            if index not in self._passwords:
                self._passwords[index] = self._sources[index][1]()
            plain = _decrypt(self._passwords[index], salt, signature, ciphertext)
            if plain is not None:
                try:
                    return plain.decode("utf-8")
                except UnicodeDecodeError:
                    raise place.error("the vaulted text is not UTF-8") from None
        raise place.error(
            f"none of the vault passwords opens this (vault id {label!r})", hint="give --vault-id id@file"
        )


def is_vaulted(text: str) -> bool:
    return text.startswith(HEADER)


def _parse(text: str, place: Place) -> tuple[str, bytes, bytes, bytes]:
    """Label, salt, HMAC, ciphertext. Raises InventoryError."""
    lines = text.strip().splitlines()
    header = [part.strip() for part in lines[0].split(";")] if lines else []
    if len(header) < 3 or header[0] != HEADER:
        raise place.error("this is not a vaulted text", hint=f"its first line starts with {HEADER};1.1;AES256")
    if header[1] not in ("1.1", "1.2") or header[2] != "AES256":
        raise place.error(
            f"vault format {header[1][:10]} {header[2][:10]} is not supported", hint="1.1 and 1.2 with AES256 are"
        )
    try:
        body = binascii.unhexlify("".join(line.strip() for line in lines[1:]))
        salt, signature, ciphertext = (binascii.unhexlify(part) for part in body.split(b"\n", 2))
    except (ValueError, binascii.Error):
        raise place.error("the vaulted text is damaged") from None
    return (header[3] if len(header) > 3 else "default"), salt, signature, ciphertext


def _decrypt(password: bytes, salt: bytes, signature: bytes, ciphertext: bytes) -> bytes | None:
    """The plain bytes, None when the password does not fit."""
    from cryptography.hazmat.primitives import hashes, padding  # slow to import; most inventories hold no vault
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    keys = PBKDF2HMAC(algorithm=hashes.SHA256(), length=80, salt=salt, iterations=ROUNDS).derive(password)
    if not hmac.compare_digest(hmac.digest(keys[32:64], ciphertext, "sha256"), signature):
        return None
    decryptor = Cipher(algorithms.AES(keys[:32]), modes.CTR(keys[64:80])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        return None


def _password_of(path: str) -> bytes:
    try:
        with user_path(path).open("rb") as file:
            password = file.read(PASSWORD_FILE_BYTES_MAX).strip()
            is_program = password.startswith(b"#!") and os.fstat(file.fileno()).st_mode & 0o111
    except OSError as error:
        raise InventoryError(f"the vault password file cannot be read: {error.strerror}", file=path) from None
    if is_program:  # which Ansible runs; as a password it would open nothing
        raise InventoryError(
            "this is a program, which is not run for a vault password",
            file=path,
            hint="keep what it prints in a file that only you may read",
        )
    if not password:
        raise InventoryError("the vault password file is empty", file=path)
    return password
