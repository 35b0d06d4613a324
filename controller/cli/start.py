"""The `sshoal` script begins and ends here: sets the interpreter up, opens the door (main.py), and leaves without tidying up."""

from __future__ import annotations

import functools
import gc
import os
import resource
import sys
from typing import NoReturn

GC_THRESHOLD = 100_000  # objects; Python's own is 700


def main() -> NoReturn:
    """Runs the command and ends the process with its exit code; see main.main."""
    # Starting makes many objects, and nearly all of them stay: looking for garbage among them takes a tenth of a short command.
    gc.set_threshold(GC_THRESHOLD)
    # Secrets pass through our memory: a crash writes none of it to a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # pydantic looks through all that is installed for plugins; what is valid must not depend on those.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    try:
        _read_signatures_once()
        from controller.cli.main import main as run_command

        run_command()
    except SystemExit as ending:
        _leave(ending)
    _leave(SystemExit(0))


def _read_signatures_once() -> None:
    """Typer reads the signature of each command three times while it builds the command line: a fifth of `--help`."""
    import typer.main

    # Where a version has no such function, it only takes longer
    read = getattr(typer.main, "get_params_from_function", None)
    if read is not None:
        typer.main.get_params_from_function = functools.cache(read)  # type: ignore[attr-defined]


def _leave(ending: SystemExit) -> NoReturn:
    """Commands close what they have opened. Taking all modules apart after that would be a tenth of a short command, for nothing."""
    code = ending.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it was closed before we began
                stream.flush()
        except (BrokenPipeError, ValueError):  # the reader has gone, or the stream was closed because of that
            code = 1
    os._exit(code or 0)
