"""Commands about hosts: init, node …, inventory …. What `init` does stands in begin.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options, preparing, read
from controller.cli.running import run

if TYPE_CHECKING:
    from controller.model.cluster import Node, World
    from controller.model.inventory import Host, Inventory

node_app = typer.Typer(
    help="Hosts as nodes: trust, check, cordon, forget …", no_args_is_help=True, rich_markup_mode=None
)
node_app.command("prepare")(preparing.node_prepare)
inventory_app = typer.Typer(
    help="Look at the inventory, as ansible-inventory does.", no_args_is_help=True, rich_markup_mode=None
)

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A node, by its name in the inventory.")]


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.add_typer(node_app, name="node")
    app.add_typer(inventory_app, name="inventory")


def init(
    hosts: Annotated[list[str], typer.Argument(metavar="[USER@]HOST[:PORT]…", help="Hosts to run containers on.")],
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Private SSH key; default: your own keys.")] = "",
    become: Annotated[
        bool, typer.Option("--become", help="Use sudo on all hosts; without it, where the user is not root.")
    ] = False,
    output: Annotated[str, typer.Option("--output", metavar="FILE", help="The inventory to write.")] = "hosts.ini",
    yes: options.Yes = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Begin with your own hosts: write an inventory, trust the hosts' keys, check them, install the agent.

    Examples:
        sshoal init root@a.example.com ubuntu@b.example.com
        sshoal init root@192.0.2.10:2222 --key ~/.ssh/cluster
        sshoal --context staging init --output staging.ini ubuntu@c.example.com
    """
    from controller.cli.begin import begin

    begin(hosts, key=key, become=become, output=output, yes=yes, context_dir=context_dir)


# ---- nodes ----------------------------------------------------------------------------------------------------------------


@node_app.command("list")
def node_list(
    output: options.Output = "table",
    cached: read.Cached = False,
    watch: read.Watch = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """List nodes; the same as `get nodes`.

    Examples:
        sshoal node list -o wide
        sshoal node list --watch
    """
    read.get(["nodes"], output=output, cached=cached, watch=watch, inventory=inventory, context_dir=context_dir)


@node_app.command("trust")
def node_trust(
    pattern: options.Pattern = "all",
    yes: options.Yes = False,
    replace: Annotated[bool, typer.Option("--replace", help="Also record keys that have changed.")] = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Show the hosts' SSH keys and record them as trusted. Nothing is ever trusted without being shown and asked.

    Examples:
        sshoal node trust 'web:!web3'
        sshoal node trust web3 --replace       # after its key was compared on its console
    """
    from controller.cli.trust import trust
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    hosts = wiring.select(pattern, others=True)  # jump hosts too
    with wiring.noted(*(f"Host {host.name}" for host in hosts)) as noted:
        failed = run(trust(wiring, hosts, yes=yes, replace=replace))
        if failed:
            noted.outcome = f"failed on {', '.join(error.host for error in failed)}"
    if failed:
        sys.exit(4)


@node_app.command("check")
def node_check(
    pattern: options.Pattern = "all",
    output: options.Output = "table",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Say everything that keeps hosts from serving, what will go wrong there some day, and what to do. Changes nothing.

    Exit code 1: some hosts cannot serve; 4: some cannot be reached. `-o wide` shows notes too. docs/hosts.md lists the checks.

    Examples:
        sshoal node check web -o wide
        sshoal node check -o json
    """
    from controller.cli.check import check_hosts, checks_text, exit_code
    from controller.cli.output import Progress, check_output, emit
    from controller.cli.wiring import Wiring

    check_output(output, ("table", "wide", "json", "yaml"))
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    hosts = wiring.select(pattern)
    line = Progress()
    try:
        checked = run(check_hosts(wiring, hosts, lambda done: line.show(f"checked {done} of {len(hosts)} hosts …")))
    finally:
        line.clear()
    emit(checks_text(checked, output), output)
    if code := exit_code(checked):
        sys.exit(code)


@node_app.command("cordon")
def node_cordon(node: NodeName, inventory: options.Inventory = None, context_dir: options.ContextDir = "") -> None:
    """Keep new pods from a node; those that are there run on.

    Examples:
        sshoal node cordon node3
        sshoal --context staging node cordon node3
    """
    _set_cordon(node, True, inventory, context_dir)


@node_app.command("uncordon")
def node_uncordon(node: NodeName, inventory: options.Inventory = None, context_dir: options.ContextDir = "") -> None:
    """Let new pods come to a node again.

    Examples:
        sshoal node uncordon node3
        sshoal --context staging node uncordon node3
    """
    _set_cordon(node, False, inventory, context_dir)


@node_app.command("drain")
def node_drain(
    node: NodeName,
    ignore_daemonsets: Annotated[
        bool, typer.Option("--ignore-daemonsets", help="Leave pods of DaemonSets where they are.")
    ] = False,
    delete_emptydir_data: Annotated[
        bool, typer.Option("--delete-emptydir-data", help="Also pods whose emptyDir volumes are lost with them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also pods that nothing replaces: they end for good.")] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long to wait; 0: as long as it takes.")
    ] = "0",
    grace_period: Annotated[
        int, typer.Option("--grace-period", metavar="SECONDS", help="Overrides the pods' own; -1: does not.")
    ] = -1,
    pod_selector: Annotated[
        str, typer.Option("--pod-selector", metavar="LABELS", help="Only pods with these labels.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Empty a node for maintenance: cordon it, and let its pods go within their disruption budgets.

    Exit code 3 when it is not empty in time; passes then go on with it until `node uncordon`.

    Examples:
        sshoal node drain node3 --ignore-daemonsets --timeout 5m
        sshoal node drain node3 --dry-run
    """
    from controller.cli.draining import Asked, drain
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    asked = Asked(
        ignore_daemonsets,
        delete_emptydir_data,
        force,
        grace_period if grace_period >= 0 else None,
        pod_selector,
        duration_s(timeout),
        dry_run,
    )
    run(drain(wiring, _node(wiring.world(), node), asked))


@node_app.command("confirm-dead")
def node_confirm_dead(
    node: NodeName,
    powered_off: Annotated[
        bool, typer.Option("--powered-off", help="It is off, and stays off until it is clean.")
    ] = False,
    wiped: Annotated[bool, typer.Option("--wiped", help="It was reinstalled: nothing of ours is on it.")] = False,
    yes: options.Yes = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Vouch that a node no longer runs anything: its pods are replaced without waiting. Only a person can know this.

    Examples:
        sshoal node confirm-dead node3 --powered-off
        sshoal node confirm-dead node3 --wiped --yes
    """
    from controller.cli import confirming
    from controller.cli.carry import commit
    from controller.cli.wiring import Wiring
    from controller.decide import verbs
    from controller.model.errors import UsageError

    if powered_off == wiped:
        raise UsageError("say how it is known to be dead", hint="either --powered-off or --wiped")
    wiring = Wiring.of(context_dir, inventory)
    world = wiring.world()
    how = "powered-off" if powered_off else "wiped"
    print("\n".join(confirming.shown(world, _silent_node(world, node), how)))
    confirm(f"confirm that {node} is {how.replace('-', ' ')}?", yes)
    # Read again: passes write down how long it is silent, and it may have answered while a person thought.
    commit(wiring, verbs.confirm_dead(_silent_node(wiring.world(), node), how))
    print(f"node/{node} confirmed dead; the next pass replaces its pods: sshoal reconcile --settle")


@node_app.command("forget")
def node_forget(
    node: NodeName,
    force: Annotated[
        bool,
        typer.Option("--force", help="Drop the records though the host cannot be reached; what runs there runs on."),
    ] = False,
    yes: options.Yes = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Stop all pods on a node, take everything of ours off the host, and drop its records.

    Examples:
        sshoal node forget node3
        sshoal node forget node3 --force       # it cannot be reached any more
    """
    from controller.cli.forget import forget
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    world = wiring.world()
    record = _node(world, node)
    pods = sorted(pod.meta.key for pod in world.pods.values() if pod.node == node)
    print(f"stopped and replaced elsewhere where others own them: {', '.join(pods)}" if pods else f"{node} has no pods")
    confirm(f"take sshoal off {node}?", yes)
    for line in run(forget(wiring, record, force=force)):
        print(line)


@node_app.command("takeover")
def node_takeover(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the inventory.")],
    former: Annotated[
        str,
        typer.Option(
            "--from", metavar="CLUSTER", help="Only if it is this one's; for an agent without records: whose pods."
        ),
    ] = "",
    yes: options.Yes = False,
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Make a host that belongs to another cluster one of this cluster. Shows whose it is, and asks.

    Examples:
        sshoal node takeover node3
        sshoal node takeover node3 --from 4f1c0d9e-0000-4000-8000-000000000001 --yes
    """
    from controller.cli import takeover
    from controller.cli.wiring import Wiring
    from nodeagent.protocol import TakeoverRequest

    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    found = _host(wiring.inventory(), host)
    cluster = wiring.store.cluster_id

    async def look() -> takeover.Holding:
        async with wiring.fleet(deploy=False) as fleet:
            return await takeover.look(fleet, found)

    async def take(request: TakeoverRequest) -> None:
        async with wiring.fleet(deploy=False) as fleet:
            await takeover.take(fleet, found, request)

    holding = run(look())
    needless = takeover.needless(holding, host, cluster)
    if needless:
        print(needless)
        return
    owner = former or (holding.owner.cluster if holding.owner is not None else "")
    print("\n".join(takeover.shown(holding, host, cluster, owner)))
    confirm(f"take {host} over?", yes)
    # The epoch in force, not a new one: that would end the controller that is active now.
    with wiring.noted(f"Node {host}", f"Cluster {owner}", node=host):
        run(take(TakeoverRequest(owner, cluster, wiring.store.epoch())))
    print(f"node/{host} taken over; the next pass says what runs there: sshoal reconcile --settle")


def _host(inventory: Inventory, name: str) -> Host:
    """Raises NotFound."""
    from controller.model.errors import NotFound

    if name not in inventory.hosts or not inventory.hosts[name].is_node:
        word = "host" if name not in inventory.hosts else "node"
        raise NotFound(
            f"there is no {word} {name!r} in the inventory", hint="sshoal inventory graph shows what is there"
        )
    return inventory.hosts[name]


def _set_cordon(name: str, cordoned: bool, inventory: list[str] | None, context_dir: str) -> None:
    from controller.cli.carry import commit
    from controller.cli.wiring import Wiring
    from controller.decide import verbs

    wiring = Wiring.of(context_dir, inventory)
    changes = verbs.cordon(_node(wiring.world(), name), cordoned)
    commit(wiring, changes)
    word = "cordoned" if cordoned else "uncordoned"
    print(f"node/{name} {word if changes else f'is {word} already'}")


def _node(world: World, name: str) -> Node:
    """Raises NotFound with the nodes that there are."""
    import difflib

    from controller.model.errors import NotFound

    if name in world.nodes:
        return world.nodes[name]
    near = difflib.get_close_matches(name, world.nodes, n=1)
    known = ", ".join(sorted(world.nodes)[:10]) or "none; the first pass makes hosts nodes: sshoal reconcile"
    raise NotFound(f"there is no node {name!r}", hint=f"did you mean {near[0]}?" if near else f"nodes: {known}")


def _silent_node(world: World, name: str) -> Node:
    """Raises NotFound; UsageError when it has answered."""
    from controller.decide.nodes import is_taken_for_another
    from controller.model.errors import UsageError

    record = _node(world, name)
    if record.missing is None and not is_taken_for_another(record):
        raise UsageError(
            f"{name} answered when it was last asked: it is not dead",
            hint=f"to keep new pods away: sshoal node cordon {name}",
        )
    return record


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; elsewhere --yes must have been given. Raises UsageError when the answer is no."""
    from controller.model.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here", hint="give --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")


# ---- inventory --------------------------------------------------------------------------------------------------------------


@inventory_app.command("list")
def inventory_list(
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Show groups and variables of all hosts, as `ansible-inventory --list`.

    Examples:
        sshoal inventory list -i hosts.ini
        sshoal inventory list -i inventories/prod --vault-id prod@prompt
    """
    from controller.model.inventory_views import list_json

    print(list_json(_inventory(context_dir, inventory, vault_id, allow_executable_inventory)))


@inventory_app.command("graph")
def inventory_graph(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="From which group on.")] = "all",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Draw groups and hosts as a tree, as `ansible-inventory --graph`.

    Examples:
        sshoal inventory graph
        sshoal inventory graph web
    """
    from controller.model.inventory_views import graph_text

    print(graph_text(_inventory(context_dir, inventory, vault_id, allow_executable_inventory), group))


@inventory_app.command("host")
def inventory_host(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of the inventory.")],
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Show the variables of one host, as `ansible-inventory --host`.

    Examples:
        sshoal inventory host web1
        sshoal inventory host web1 -i inventories/prod
    """
    from controller.model.inventory_views import host_json

    print(host_json(_inventory(context_dir, inventory, vault_id, allow_executable_inventory), host))


def _inventory(context_dir: str, sources: list[str] | None, vault_id: list[str] | None, executables: bool) -> Inventory:
    from controller.cli.wiring import Wiring

    read_ = Wiring.of(context_dir, sources, vault=vault_id, executables=executables).inventory()
    for warning in read_.warnings:
        print(f"note: {warning}", file=sys.stderr)
    return read_
