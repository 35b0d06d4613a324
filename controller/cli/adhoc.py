"""`run`: a command on hosts of the inventory, over SSH alone. What it does stands in onhosts.py."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from controller.cli import options
from controller.cli.running import run_until_interrupted


def register(app: typer.Typer) -> None:
    app.command("run", context_settings={"allow_interspersed_args": False})(run)


def run(
    pattern: options.Pattern,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="A line for /bin/sh, or a program and its arguments.")
    ],
    become: Annotated[
        bool, typer.Option("--become", "-b", help="As the inventory's become user: root, mostly.")
    ] = False,
    parallel: Annotated[int, typer.Option("--parallel", metavar="N", min=1, max=100, help="Hosts at once.")] = 10,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="What a host may take, e.g. 90s.")] = "5m",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Run a command on hosts, without any agent; output as it comes, each line with its host. Options go before the pattern.

    One word is a line of /bin/sh, of several each is one argument. The exit code is the highest of all; 4 for hosts that failed.

    Examples:
        sshoal run web -- systemctl is-active podman.socket
        sshoal run 'web:!web3' -- 'df -h / | tail -1'
        sshoal run --become --parallel 3 all -- apt-get update
    """
    from controller.cli.onhosts import Order, run_on_hosts, script_of
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring
    from controller.model.errors import UsageError

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("which command?", hint=f"sshoal run {pattern} -- uptime")
    order = Order(script_of(words), become, duration_s(timeout), parallel)
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    hosts = wiring.select(pattern, others=True)
    with wiring.noted(*(f"Host {host.name}" for host in hosts)) as noted:
        code = run_until_interrupted(run_on_hosts(wiring, hosts, order))
        noted.outcome = f"exit code {code}"
    sys.exit(code)
