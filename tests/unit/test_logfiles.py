"""The end of a container's log, which stands for its last words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.logfiles import END_BYTES_MAX, LogFiles

STAMP = "2025-01-01T00:00:00.000000000+00:00"


def log(root: Path, *lines: str) -> LogFiles:
    files = LogFiles(str(root))
    Path(files.path("uid-1", "app", 2)).write_text("".join(f"{STAMP} {line}\n" for line in lines))
    return files


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (["stdout F one", "stderr F two"], "one\ntwo"),
        (["stdout P begun, ", "stdout F and ended"], "begun, and ended"),
        ([f"stdout F {number}" for number in range(100)], "\n".join(map(str, range(20, 100)))),
        (["stdout F " + "x" * 5000], "x" * (END_BYTES_MAX - 1)),
        (["torn"], ""),
        ([], ""),
    ],
)
def test_the_end_of_a_log_is_80_lines_and_2048_bytes_at_most(tmp_path: Path, lines: list[str], end: str) -> None:
    assert log(tmp_path, *lines).end("uid-1", "app", 2) == end


def test_a_log_that_is_not_there_has_no_end(tmp_path: Path) -> None:
    assert log(tmp_path).end("uid-1", "app", 3) == ""


def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    files = log(tmp_path, "stdout F one")
    path = Path(files.path("uid-1", "app", 3))
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic link"):
        files.end("uid-1", "app", 3)
