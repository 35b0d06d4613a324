"""`sshoal lab …`: parse, one call, print. Heavy imports stay inside the functions: `sshoal --help` must be quick."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lab.lab import Lab

app = typer.Typer(no_args_is_help=True, help="A lab of real hosts (systemd, sshd, Podman) on this one machine.")

Name = Annotated[str, typer.Option("--name", "-n", metavar="LAB", help="Which lab; several can live side by side.")]
Host = Annotated[str, typer.Argument(metavar="NODE", help="A host of the lab, such as node1.")]


@app.command()
def up(
    hosts: Annotated[int, typer.Option("--hosts", metavar="N", min=1, max=99, help="How many hosts.")] = 3,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="BASE",
            help='"debian": a minimal Debian, made once; "bare": one without Podman. "/": this machine\'s own root.',
        ),
    ] = "debian",
    name: Name = "lab",
) -> None:
    """Starts the hosts, or those of an existing lab that are off, and waits until they are ready.

    Examples:
        sshoal lab up --hosts 3
        sshoal lab up --name other --hosts 2
    """
    from lab.lab import Lab

    started = time.monotonic()

    def progress(message: str) -> None:
        typer.echo(f"[{time.monotonic() - started:5.1f}s] {message}", err=True)

    lab = Lab.up(name, hosts=hosts, base=base, progress=progress)
    progress(f"{hosts} hosts ready")
    _print_table(lab)


@app.command()
def status(name: Name = "lab") -> None:
    """Shows the hosts, their state and how to log in.

    Examples:
        sshoal lab status
        sshoal lab status --name other
    """
    _print_table(_load(name))


@app.command(context_settings={"allow_interspersed_args": False})
def ssh(
    host: Host,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND…", help="What to run there; nothing: a shell.")
    ] = None,
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER", help="root or ubuntu (may sudo).")] = "root",
    name: Name = "lab",
) -> None:
    """Logs in on a host, or runs a command there.

    Examples:
        sshoal lab ssh node1
        sshoal lab ssh node1 'podman ps'
    """
    from controller.model.errors import UsageError

    if user not in ("root", "ubuntu"):
        raise UsageError(f"--user {user}: the lab's hosts know root and ubuntu")
    argv = _load(name).host(host).ssh_argv(user=user)
    if command and command[0] != "--":
        command = ["--", *command]
    os.execvp("ssh", [*argv, *(command or [])])


@app.command()
def kill(host: Host, name: Name = "lab") -> None:
    """Cuts a host's power: nothing orderly happens on it.

    Examples:
        sshoal lab kill node3
        sshoal lab kill node3 --name other
    """
    _load(name).kill(host)
    typer.echo(f"{host} is off; power on: sshoal lab start {host}")


@app.command()
def start(host: Host, name: Name = "lab") -> None:
    """Powers a host on again and waits until it is ready.

    Examples:
        sshoal lab start node3
        sshoal lab start node3 --name other
    """
    _load(name).start(host)
    typer.echo(f"{host} is ready")


@app.command()
def reboot(host: Host, name: Name = "lab") -> None:
    """Reboots a host in order (by power cut after 15 s) and waits until it is ready.

    Examples:
        sshoal lab reboot node2
        sshoal lab reboot node2 --name other
    """
    _load(name).reboot(host)
    typer.echo(f"{host} is ready again")


@app.command()
def partition(host: Host, name: Name = "lab") -> None:
    """Cuts a host off the network, both ways. It runs on.

    Examples:
        sshoal lab partition node3
        sshoal lab partition node3 --name other
    """
    _load(name).partition(host)
    typer.echo(f"{host} is cut off; undo: sshoal lab heal {host}")


@app.command()
def heal(host: Host, name: Name = "lab") -> None:
    """Connects a host again.

    Examples:
        sshoal lab heal node3
        sshoal lab heal node3 --name other
    """
    _load(name).heal(host)
    typer.echo(f"{host} is connected")


@app.command()
def freeze(host: Host, name: Name = "lab") -> None:
    """Stops all processes of a host where they are, as a paused VM.

    Examples:
        sshoal lab freeze node1
        sshoal lab freeze node1 --name other
    """
    _load(name).freeze(host)
    typer.echo(f"{host} is frozen; undo: sshoal lab thaw {host}")


@app.command()
def thaw(host: Host, name: Name = "lab") -> None:
    """Lets a frozen host go on.

    Examples:
        sshoal lab thaw node1
        sshoal lab thaw node1 --name other
    """
    _load(name).thaw(host)
    typer.echo(f"{host} goes on")


@app.command()
def down(name: Name = "lab") -> None:
    """Cuts the power of all hosts and removes everything of the lab.

    Examples:
        sshoal lab down
        sshoal lab down --name other
    """
    from controller.model.errors import NotFound

    try:
        lab = _load(name)
    except NotFound as error:
        typer.echo(f"{error}: nothing to remove")
        return
    lab.down()
    typer.echo(f"lab {name} is gone")


def _load(name: str) -> Lab:
    from lab.lab import Lab
    from lab.system import require_root_and_programs

    require_root_and_programs()
    return Lab.load(name)


def _print_table(lab: Lab) -> None:
    option = "" if lab.name == "lab" else f" --name {lab.name}"
    rows = [("NAME", "ADDRESS", "STATE", "LOG IN")]
    rows += [(host.name, str(host.address), host.state(), f"sshoal lab ssh{option} {host.name}") for host in lab.hosts]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(f"\ninventory (root):          {lab.inventory}")
    typer.echo(f"inventory (ubuntu, sudo):  {lab.inventory_sudo}")
    typer.echo(f"inventory (rootless):      {lab.inventory_rootless}")
    typer.echo("\nnext, so that sshoal finds them (its records go with the lab):")
    typer.echo(f"  export SSHOAL_INVENTORY={lab.inventory} SSHOAL_CONTEXT={lab.inventory.parent / 'context'}")
    typer.echo("  sshoal reconcile")


def main() -> None:
    """Runs the commands on their own, with the errors and exit codes of sshoal."""
    from controller.model.errors import SshoalError

    try:
        app()
    except SshoalError as error:
        typer.echo(f"error: {error}", err=True)
        if error.hint:
            typer.echo(f"  {error.hint}", err=True)
        sys.exit(error.exit_code)
