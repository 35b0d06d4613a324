"""Metrics of the passes that a command runs: counted after each, served over HTTP (watch) or written to a file (reconcile)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from controller.act.userpath import user_path
from controller.cli.measures import Totals, families
from controller.model.errors import SshoalError, UsageError
from controller.model.metrics import text_of

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring
    from controller.loop import Pass
    from controller.model.cluster import Moment

_FILE_BYTES_MAX = 64 * 1024 * 1024
_FILE_MODE = 0o644  # node_exporter is another user; there is no secret in it


@dataclass
class Meter:
    """The latest pass and what all came to. `file`: where `write` puts the text."""

    wiring: Wiring
    file: Path | None = None
    totals: Totals = field(default_factory=Totals)
    _latest: tuple[Pass, Moment] | None = None

    @classmethod
    def of_file(cls, wiring: Wiring, path: str) -> Meter:
        """Goes on counting from the file that is there. Raises UsageError for a path where none can be."""
        file = user_path(path).absolute()
        if not file.parent.is_dir():
            raise UsageError(f"--metrics-file: there is no directory {file.parent}")
        if file.suffix != ".prom":
            raise UsageError(f"--metrics-file {path}: node_exporter reads files that end with .prom")
        return cls(wiring, file, Totals.read(_text_in(file)))

    def passed(self, done: Pass) -> None:
        moment = self.wiring.now()
        self.totals.add(done, moment)
        self._latest = (done, moment)

    def text(self) -> str:
        """All metrics as they are now; before the first pass only the totals."""
        if self._latest is None:
            return text_of(self.totals.families())
        done, moment = self._latest
        return text_of(families(done, self.totals, self.wiring.store.size(), moment, _version()))

    def write(self) -> None:
        """Raises SshoalError when the file cannot be written."""
        from controller.act.wholefile import write_whole

        assert self.file is not None
        try:
            write_whole(self.file, self.text(), mode=_FILE_MODE)
        except OSError as error:
            raise SshoalError(
                f"{self.file} cannot be written: {error.strerror}", hint="another --metrics-file"
            ) from None

    def failed(self) -> None:
        """A run, or a pass of many, that ended by an error: it is counted. That it cannot be written is no reason to hide that error."""
        self.totals.add_failure()
        if self.file is None:
            return  # served: whoever asks next is told
        with contextlib.suppress(SshoalError):
            self.write()


@contextlib.asynccontextmanager
async def listening(address: str, meter: Meter) -> AsyncIterator[str]:
    """Serves the meter's text while inside, and gives its URL. Raises UsageError, SshoalError."""
    from controller.act.metrics_http import is_loopback, parse_address, serving

    host, wanted = parse_address(address)
    if not is_loopback(host):
        print(f"note: whoever reaches {host} can read the metrics", file=sys.stderr)
    async with serving(host, wanted, meter.text) as port:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _text_in(file: Path) -> str:
    """What an earlier run wrote; "" where there is none, or something else."""
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(_FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError):
        return ""


def _version() -> str:
    from importlib import metadata

    return metadata.version("sshoal")
