"""asyncssh, imported without the searches for optional C libraries (GSSAPI, libnettle, liboqs) that its import makes.

They start ldconfig and a compiler, which takes longer than the rest of the import. What they would add is not missed: GSSAPI is off
(ssh.py), UMAC and sntrup761 are each one algorithm of many, and ML-KEM, the newer post-quantum one, comes with the cryptography package.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import sys
from collections.abc import Iterator
from typing import Any, cast


@contextlib.contextmanager
def _no_optional_libraries() -> Iterator[None]:
    found = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None
    cast(dict[str, Any], sys.modules)["asyncssh.gss_unix"] = None  # Python's own way to say: not to be imported
    try:
        yield
    finally:
        ctypes.util.find_library = found


with _no_optional_libraries():
    import asyncssh

__all__ = ["asyncssh"]
