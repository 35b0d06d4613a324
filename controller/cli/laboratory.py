"""`sshoal lab …`: the lab's commands are its own."""

from __future__ import annotations

import typer

from lab import cli as lab


def register(app: typer.Typer) -> None:
    app.add_typer(lab.app, name="lab", help="A lab of real hosts on this machine.")
