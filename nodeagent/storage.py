"""The agent's documents on disk. In: JSON objects by name. Out: the same after any crash, or StorageCorrupt. Does file I/O.

A file is one header line, then the document as it was written. Whole or not at all: temporary file, fsync, rename, fsync of the
directory. The header's SHA-256 finds what a disk or a power cut changed all the same; such a file is kept aside.

Secret documents are sealed by systemd-creds (TPM where there is one, else a key that only this host's root reads) so that a copy of the
state directory alone gives nothing away. Where that does not work they are plain in a 0600 file, and `sealing` says so: report it.
"""

import errno
import hashlib
import json
import logging
import os
import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from nodeagent.runtime import StorageCorrupt

SEAL_TIMEOUT_S = 5.0
SEAL_CHUNK_BYTES = 512 * 1024  # systemd-creds takes 1 MiB at most
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
CORRUPT_KEPT_MAX = 5
_DAMAGED = (errno.EIO, errno.EUCLEAN)  # a bad sector, a broken file system; everything else may pass
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_BALLAST = ".ballast"

_log = logging.getLogger("sshoal.storage")


class DirStorage:
    """Implements runtime.Storage in one directory of mode 0700 that belongs to this user.

    Attributes:
        sealing: whether secret documents are sealed; None until the first one was written or read.
        sealing_trouble: why not.
    """

    def __init__(self, path: str, *, ballast_bytes: int = 0, seal_tool: str = "systemd-creds") -> None:
        """`ballast_bytes`: disk space kept back so that a save still succeeds on a full disk. Raises OSError for a directory not ours."""
        self.sealing: Optional[bool] = None
        self.sealing_trouble = ""
        self._path = Path(path)
        self._ballast_bytes = ballast_bytes
        self._seal_tool = seal_tool
        own_directory(self._path)
        self._keep_ballast()

    def load(self, name: str) -> Optional[dict[str, Any]]:
        path = self._file(name)
        try:
            with path.open("rb") as file:
                content = file.read(DOCUMENT_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _DAMAGED:
                raise
            raise StorageCorrupt(f"{path}: {error.strerror}") from None
        try:
            sealed, payload = _parse(content)
            return _document(self._unseal(name, payload) if sealed else payload)
        except ValueError as error:
            raise StorageCorrupt(f"{path}: {error}; {self._set_aside(path)}") from None

    def save(self, name: str, document: Mapping[str, Any], *, secret: bool = False) -> None:
        """One sealed save starts a process for each 512 KiB (about 10 ms): call it from a thread where that matters."""
        path = self._file(name)
        payload = json.dumps(document, separators=(",", ":")).encode()
        sealed = self._seal(name, payload) if secret else None
        content = _compose(payload if sealed is None else sealed, sealed is not None)
        try:
            self._replace(path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._drop_ballast():
                raise
            self._replace(path, content)
        else:
            self._keep_ballast()

    def delete(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)
        _sync_directory(self._path)

    def _file(self, name: str) -> Path:
        if not _NAME.match(name):
            raise ValueError(f"not a document name: {name!r}")
        return self._path / name

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.new")
        try:
            temporary.unlink(missing_ok=True)  # of a crash; O_EXCL then says that nobody else put one there
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(self._path)

    def _set_aside(self, path: Path) -> str:
        kept = [path.with_name(f"{path.name}.corrupt-{n}") for n in range(1, CORRUPT_KEPT_MAX + 1)]
        target = next((item for item in kept if not item.exists()), kept[-1])
        try:
            path.replace(target)
        except OSError as error:  # a read-only disk: say so, and start without the document all the same
            return f"it could not be moved aside: {error.strerror}"
        return f"kept as {target.name}"

    # ---- ballast ----

    def _keep_ballast(self) -> None:
        """Allocates the reserve when there is plenty of room for it again."""
        ballast = self._path / _BALLAST
        if not self._ballast_bytes or ballast.exists():
            return
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < 4 * self._ballast_bytes:
            return
        try:
            with os.fdopen(os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._ballast_bytes)
        except OSError:
            ballast.unlink(missing_ok=True)  # without a reserve everything works as long as the disk has room

    def _drop_ballast(self) -> bool:
        try:
            (self._path / _BALLAST).unlink()
        except OSError:
            return False
        return True

    # ---- sealing ----

    def _seal(self, name: str, payload: bytes) -> Optional[bytes]:
        """Lines of sealed chunks; None where sealing does not work: found out once, since a hanging tool costs seconds each time."""
        if self.sealing is False:
            return None
        chunks = [payload[start : start + SEAL_CHUNK_BYTES] for start in range(0, len(payload), SEAL_CHUNK_BYTES)]
        sealed = []
        try:
            for number, chunk in enumerate(chunks):
                sealed.append(self._creds("encrypt", name, number, chunk))
        except (OSError, subprocess.SubprocessError) as error:
            self.sealing, self.sealing_trouble = False, _trouble(error)
            _log.warning("secrets are kept on this disk unsealed, readable by this user only: %s", self.sealing_trouble)
            return None
        self.sealing = True
        return b"\n".join(b64encode(chunk) for chunk in sealed)

    def _unseal(self, name: str, payload: bytes) -> bytes:
        try:
            plain = b"".join(
                self._creds("decrypt", name, number, b64decode(chunk))
                for number, chunk in enumerate(payload.split(b"\n"))
            )
        except (OSError, subprocess.SubprocessError) as error:
            # The file stays: the host's key may come back, and the next save replaces it anyway.
            raise StorageCorrupt(f"{self._path / name}: can't be unsealed: {_trouble(error)}") from None
        self.sealing = True
        return plain

    def _creds(self, verb: str, name: str, number: int, data: bytes) -> bytes:
        argv = [self._seal_tool, f"--name=sshoal-{name}-{number}", verb, "-", "-"]
        return subprocess.run(argv, input=data, capture_output=True, timeout=SEAL_TIMEOUT_S, check=True).stdout


def own_directory(path: Path) -> None:
    """Makes a 0700 directory, or checks that it is one of this user's. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
        raise PermissionError(errno.EPERM, "not a directory of this user", str(path))
    if status.st_mode & 0o077:
        path.chmod(0o700)


def _compose(payload: bytes, sealed: bool) -> bytes:
    header = {"format": 1, "sealed": sealed, "sha256": hashlib.sha256(payload).hexdigest()}
    return json.dumps(header).encode() + b"\n" + payload


def _parse(content: bytes) -> tuple[bool, bytes]:
    """(is it sealed, payload); ValueError says what is wrong with the file."""
    line, newline, payload = content.partition(b"\n")
    try:
        header = json.loads(line)
        digest, sealed, version = header["sha256"], header["sealed"], header["format"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("has no header" if content else "is empty") from None
    if version != 1 or not isinstance(sealed, bool):
        raise ValueError(f"has an unknown format {version!r}")
    if not newline or hashlib.sha256(payload).hexdigest() != digest:
        raise ValueError("does not match its checksum")
    return sealed, payload


def _document(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except ValueError:  # its words could hold a part of a secret
        document = None
    if not isinstance(document, dict):
        raise ValueError("holds no document")
    return document


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _trouble(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"systemd-creds failed: {error.stderr.decode('utf-8', 'replace').strip()[-200:]}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"systemd-creds gave no answer within {SEAL_TIMEOUT_S:g} s"
    return str(error)
