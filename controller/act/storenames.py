"""Names of stored objects for shell completion: one quick look into the file, without loading what opens it as a store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

FILE = "store.db"  # in a context's directory

_MAX = 2000
_BUSY_TIMEOUT_S = 0.2  # somebody waits with a finger on the tab key


class Names:
    """Answers from a store's file; empty ones where there is none, or none that can be read now."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, kind: str, namespace: str = "") -> list[str]:
        """Names of all objects of a kind; "" as namespace for kinds without."""
        return self._column("SELECT name FROM records WHERE kind = ? AND namespace = ? ORDER BY name", kind, namespace)

    def of_all(self, namespace: str) -> list[tuple[str, str]]:
        """(kind, name) of all objects in a namespace."""
        rows = self._rows("SELECT kind, name FROM records WHERE namespace = ? ORDER BY kind, name", namespace)
        return [(kind, name) for kind, name in rows]

    def namespaces(self) -> list[str]:
        return self._column(
            "SELECT namespace AS n FROM records WHERE namespace != ''"
            " UNION SELECT name AS n FROM records WHERE kind = 'Namespace' ORDER BY n"
        )

    def containers(self, pod: str, namespace: str) -> list[str]:
        """Of a pod whose agent has told of it."""
        return self._column(
            "SELECT json_extract(one.value, '$.name') FROM records, json_each(records.data, '$.report.containers') AS one"
            " WHERE kind = 'Pod' AND name = ? AND namespace = ?",
            pod,
            namespace,
        )

    def _column(self, query: str, *values: str) -> list[str]:
        return [str(row[0]) for row in self._rows(query, *values)]

    def _rows(self, query: str, *values: str) -> Iterator[tuple[str, ...]]:
        try:
            uri = f"file:{quote(os.fsencode(self._path))}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)) as database:
                yield from database.execute(f"{query} LIMIT {_MAX:d}", values)
        except sqlite3.Error:
            return
