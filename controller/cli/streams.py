"""Commands that hold a stream to containers: logs, exec, port-forward. What they do stands in logs.py, terminal.py and forward.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options
from controller.cli.running import run_until_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controller.model.cluster import Pod, World

Container = Annotated[
    str, typer.Option("--container", "-c", metavar="NAME", help="Which container; default: the first.")
]
PodOrDeployment = Annotated[
    str, typer.Argument(metavar="POD|KIND/NAME", help="A pod, or a workload: deployment/NAME, job/NAME …")
]

_TAIL_OF_CHOSEN = 10  # lines of each pod that a selector chooses, as in kubectl


def register(app: typer.Typer) -> None:
    app.command()(logs)
    app.command("exec")(exec_)
    app.command("port-forward")(port_forward)


def logs(
    target: Annotated[
        str | None,
        typer.Argument(metavar="POD|KIND/NAME", help="A pod, or a workload: deployment/NAME, job/NAME …; or -l."),
    ] = None,
    selector: options.ChosenPods = None,
    container: Container = "",
    all_containers: Annotated[
        bool, typer.Option("--all-containers", help="Of all containers of each pod, those that only begin it included.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the container before its last restart.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option("--tail", metavar="LINES", help="Only the last lines; -1: all. Default: all, with -l 10 of each."),
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Only what is younger, e.g. 5m.")] = "",
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    namespace: options.Namespace = "default",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Print what containers write; of several pods merged, each line with its pod. On a terminal, escapes but colours are taken out.

    Examples:
        sshoal logs deployment/web -f --tail 20
        sshoal logs -l app=web,tier!=db --all-containers -f
        sshoal logs web-6d4cf56db6-x7k2p -c nginx --previous
        sshoal logs job/pi --since 5m --timestamps
    """
    from controller.cli.logs import Wanted, show_logs
    from controller.cli.output import duration_s
    from controller.cli.targets import NONE_FOUND
    from controller.cli.wiring import Wiring
    from controller.model.errors import UsageError

    if all_containers and container:
        raise UsageError("--all-containers and -c contradict each other", hint="one of them")
    since_s = duration_s(since) if since else 0.0
    if tail is None:
        tail = -1 if selector is None else _TAIL_OF_CHOSEN
    pods_of = _whose_logs(target, selector, namespace)
    wiring = Wiring.of(context_dir, inventory)
    wanted = Wanted(container, follow, previous, tail, since_s, timestamps, all_containers)
    chosen = pods_of(wiring.world())
    if chosen is None:
        print(NONE_FOUND, file=sys.stderr)
    elif run_until_interrupted(show_logs(wiring, chosen, wanted, lambda: pods_of(wiring.world()) or ())):
        sys.exit(4)


def exec_(
    pod: Annotated[
        str,
        typer.Argument(
            metavar="POD|KIND/NAME", help="In which pod; of a workload's, e.g. deployment/NAME, a ready one."
        ),
    ],
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="What to run there; a shell only if you name one.")
    ],
    container: Container = "",
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="With a terminal.")] = False,
    namespace: options.Namespace = "default",
    inventory: options.InventoryLong = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Run a command in a container; its exit code becomes ours. What is ours goes before `--`.

    Examples:
        sshoal exec -it web-6d4cf56db6-x7k2p -- sh
        sshoal exec web-6d4cf56db6-x7k2p -n shop -c nginx -- nginx -t
        pg_dump shop | sshoal exec -i db-0 -- psql
    """
    from controller.act.store import named
    from controller.cli.terminal import run_command
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    chosen = one_pod(wiring.world(), pod, namespace)
    with wiring.noted(named(chosen), node=chosen.node) as noted:
        code = run_until_interrupted(run_command(wiring, chosen, container, command, stdin=stdin, tty=tty))
        noted.outcome = f"exit code {code}"
    sys.exit(code)


def port_forward(
    target: PodOrDeployment,
    ports: Annotated[
        list[str], typer.Argument(metavar="[LOCAL:]REMOTE…", help="8080, 9000:8080, or :8080 for any free one.")
    ],
    namespace: options.Namespace = "default",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Let connections to this machine's 127.0.0.1 go to a port of a pod, over SSH. Ends with Ctrl-C.

    Examples:
        sshoal port-forward deployment/web 9000:8080
        sshoal port-forward db-0 5432
        sshoal port-forward deployment/web :http       # any free port here, a port by its name there
    """
    from controller.act.store import named
    from controller.cli.forward import forward, parse_ports
    from controller.cli.wiring import Wiring

    pairs = parse_ports(ports)
    wiring = Wiring.of(context_dir, inventory)
    pod = one_pod(wiring.world(), target, namespace)
    with wiring.noted(named(pod), node=pod.node):
        run_until_interrupted(forward(wiring, pod, pairs))


# ---- which pods ---------------------------------------------------------------------------------------------------------


def _whose_logs(target: str | None, selector: str | None, namespace: str) -> Callable[[World], list[Pod] | None]:
    """What finds the pods in a world that logs are asked of; None: none is chosen. Raises UsageError."""
    from controller.cli.targets import parse_chosen
    from controller.model.cluster import Pod
    from controller.model.errors import UsageError

    if target is not None and selector is not None:
        raise UsageError("only a selector (-l) or a POD name is allowed", hint="sshoal logs -l app=web")
    if target is not None:
        return lambda world: _pods(world, target, namespace)
    if selector is None:
        raise UsageError("POD or KIND/NAME is missing", hint="sshoal logs deployment/web, or sshoal logs -l app=web")
    targets = parse_chosen(["pods"], namespace, selector, False)

    def chosen(world: World) -> list[Pod] | None:
        found = [pod for pod in targets.records(world) if isinstance(pod, Pod)]
        return _on_nodes(found) if found else None

    return chosen


def one_pod(world: World, target: str, namespace: str) -> Pod:
    """A ready one of a deployment's; the pod itself else. Raises NotFound, UsageError."""
    from controller.decide.standing import is_ready
    from controller.model.errors import NotFound

    pods = _pods(world, target, namespace)
    best: Callable[[Pod], tuple[bool, str]] = lambda pod: (not is_ready(pod), pod.meta.name)  # noqa: E731
    if not pods:
        raise NotFound(f"{target} has no pods on a node", hint=f"sshoal describe {target}")
    return min(pods, key=best)


def _pods(world: World, target: str, namespace: str) -> list[Pod]:
    """Pods that a target names and that have a node, by name. Raises NotFound, UsageError."""
    from controller.cli.names import parse_target
    from controller.decide.verbs import find, revisions_of
    from controller.model.cluster import Declared, Deployment, Node, Pod
    from controller.model.errors import NotFound, UsageError

    record = find(world, *parse_target(target, namespace))
    if isinstance(record, Pod):
        if not record.node:
            raise NotFound(
                f"pod {record.meta.name} is on no node yet: {record.unplaced or 'the next pass places it'}",
                hint=f"sshoal describe pod {record.meta.name}",
            )
        return [record]
    if isinstance(record, Declared | Node):
        raise UsageError(f"a {record.meta.kind} has no containers", hint="a pod, deployment/NAME or job/NAME")
    owners = {record.meta.uid}
    owners |= {item.meta.uid for item in world.workloads.values() if item.meta.owner and item.meta.owner.uid in owners}
    if isinstance(record, Deployment):
        owners = {item.meta.uid for item in revisions_of(world, record)}
    pods = [pod for pod in world.pods.values() if pod.meta.owner and pod.meta.owner.uid in owners]
    return _on_nodes(pods)


def _on_nodes(pods: Iterable[Pod]) -> list[Pod]:
    return sorted((pod for pod in pods if pod.node and pod.lost is None), key=lambda pod: pod.meta.name)
