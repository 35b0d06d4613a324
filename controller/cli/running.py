"""Runs a command's coroutine. asyncio is imported here, when it is needed: it would be a third of the start of `--help`."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Ctrl-C cancels it, and is then raised as KeyboardInterrupt."""
    import asyncio

    return asyncio.run(work)


def run_until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """As `run`, for what is meant to be ended by Ctrl-C: that is told by exit code 130 alone."""
    try:
        return run(work)
    except KeyboardInterrupt:
        sys.exit(130)


def command_context() -> Any:
    """Typer's context of the command that is carried out; None outside of one."""
    from typer.main import get_current_context  # type: ignore[attr-defined]  # typer exports it nowhere else

    return get_current_context(silent=True)


def command_words() -> str:
    """The command that is carried out, without options and arguments: "rollout undo"; "" outside of one."""
    context = command_context()
    return context.command_path.partition(" ")[2] if context is not None else ""
