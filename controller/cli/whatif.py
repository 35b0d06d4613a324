"""Commands that ask why and what if: explain, simulate, rebalance. All look at the hosts, and none changes anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options
from controller.cli.running import run

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring
    from controller.decide.explain import Explanation
    from controller.decide.whatif import Machine, Outcome
    from controller.loop import Pass
    from controller.model.cluster import World
    from controller.model.plan import Change


def register(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(simulate)
    app.command()(rebalance)


def explain(
    target: Annotated[list[str], typer.Argument(metavar="POD", help="pod/NAME, or the name alone.")],
    namespace: options.Namespace = "default",
    output: options.Output = "table",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Tell why a pod is on its node, or on none: each node's verdict and scores, and what would make the pod fit.

    Examples:
        sshoal explain pod/web-62p5n2bt9s-2lqt8
        sshoal explain web-62p5n2bt9s-2lqt8 -o wide
    """
    from controller.cli.names import is_kind, parse_one
    from controller.cli.output import check_output, document, emit, is_document
    from controller.cli.wiring import Wiring
    from controller.decide import verbs
    from controller.decide.explain import explain as explain_pod
    from controller.model.cluster import Pod
    from controller.model.errors import NotFound, UsageError

    check_output(output, ("table", "wide", "json", "yaml"))
    identity = parse_one(target, namespace)
    if identity[0] != "Pod":
        raise UsageError(f"nodes are chosen for pods, not for a {identity[0]}", hint="sshoal get pods")
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    try:
        verbs.find(wiring.world(), *identity)
    except NotFound:
        if not is_kind(target[0].partition(".")[0]) or len(target) > 1:
            raise
        raise UsageError(  # `kubectl explain deployment.spec`
            "explain tells why a pod is on its node, not what fields mean",
            hint="docs/manifest.md and docs/compatibility.md tell of fields",
        ) from None
    seen = run(_look(wiring))
    world = _as_seen(seen)
    pod = verbs.find(world, *identity)
    assert isinstance(pod, Pod)
    explanation = explain_pod(world, seen.plan.nodes, pod)
    if is_document(output):
        emit(document(_explained(explanation), output), output)
    else:
        print(_explanation_text(explanation, wide=output == "wide"))
    _exit_for(seen)


def simulate(
    lose: Annotated[str, typer.Option("--lose", metavar="NODE,…", help="These nodes are gone for good.")] = "",
    drain: Annotated[str, typer.Option("--drain", metavar="NODE,…", help="Their pods go elsewhere.")] = "",
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="4cpu,8Gi", help="A host more, of this size (repeatable).")
    ] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="PATH", help="These manifests are applied.")
    ] = None,
    recursive: options.Recursive = False,
    lenient: options.Lenient = False,
    namespace: options.Namespace = "default",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Show where pods would run if hosts were lost, emptied or added, or manifests applied. Exit code 3: some would run nowhere.

    Examples:
        sshoal simulate --lose node3
        sshoal simulate --drain node1,node2
        sshoal simulate --add 4cpu,8Gi -f new.yaml
    """
    from controller.cli.wiring import Wiring
    from controller.cli.workloads import changes_of, read_texts
    from controller.decide.whatif import Imagined, imagine

    machines = tuple(_machine(text) for text in add or ())
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    changes: Sequence[Change] = ()
    if filename:
        changes = changes_of(wiring, read_texts(filename, recursive), lenient, namespace)
    seen = run(_look(wiring))
    what = Imagined(_words(lose), _words(drain), machines, tuple(changes))
    outcome = imagine(seen.world, what, wiring.now())
    print(_outcome_text(outcome))
    _tell_unseen(seen)
    if outcome.unplaced or outcome.refused or outcome.stuck or not outcome.at_rest:
        sys.exit(3)
    if seen.unseen:
        sys.exit(4)


def rebalance(
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be moved: moving is planned.")] = False,
    max_moves: Annotated[int, typer.Option("--max-moves", metavar="N", min=1, help="At most so many.")] = 20,
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Show which pods would better run elsewhere, as after a host came back, in rounds that keep what rollouts promise.

    Examples:
        sshoal rebalance --plan --max-moves 10
        sshoal rebalance --plan
    """
    from controller.cli.output import table
    from controller.cli.wiring import Wiring
    from controller.decide.rebalance import rebalance as propose
    from controller.model.errors import UsageError

    if not plan:
        raise UsageError("pods are not moved by a command yet", hint="sshoal rebalance --plan shows what to move")
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    seen = run(_look(wiring))
    moves = propose(_as_seen(seen), seen.plan.nodes, max_moves)
    if moves:
        rows = [
            [str(move.round), move.pod.meta.namespace, move.pod.meta.name, move.source, move.target, f"+{move.gain}"]
            for move in moves
        ]
        print(table(["ROUND", "NAMESPACE", "POD", "FROM", "TO", "POINTS"], rows))
    else:
        print("every pod is where it would be placed now")
    _exit_for(seen)


# ---- looking --------------------------------------------------------------------------------------------------------------


async def _look(wiring: Wiring) -> Pass:
    """What a pass would see and do. Nothing is installed, written or pushed."""
    from controller.act.fleet import Deadlines
    from controller.cli.scene import POLL_S

    async with wiring.fleet(Deadlines(poll_s=POLL_S, silent_s=1.0, missed_s=0.5), deploy=False) as fleet:
        return await wiring.observing(fleet).preview()


def _as_seen(seen: Pass) -> World:
    """The records with what hosts say now; nothing of what the pass would decide."""
    from controller.model.cluster import Node
    from controller.model.plan import changed

    return changed(
        seen.world,
        [
            change
            for change in seen.plan.changes
            if isinstance(change.record, Node) or change.verb in ("report", "remove")
        ],
    )


def _tell_unseen(seen: Pass) -> None:
    from controller.model.text import printable

    for name, sighting in seen.unseen.items():
        print(f"note: {name} gives no report: {printable(sighting.why)}", file=sys.stderr)


def _exit_for(seen: Pass) -> None:
    _tell_unseen(seen)
    if seen.unseen:
        sys.exit(4)


# ---- what is asked --------------------------------------------------------------------------------------------------------


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _machine(text: str) -> Machine:
    """ "4cpu,8Gi" → 4000 millicores and 8 GiB. Raises UsageError."""
    from controller.decide.whatif import Machine
    from controller.model.errors import UsageError
    from controller.model.quantity import cpu_millicores, memory_bytes

    cpu, _, memory = text.partition(",")
    try:
        if not cpu.endswith("cpu"):
            raise ValueError(f"{cpu!r} does not end with cpu")
        return Machine(cpu_millicores(cpu.removesuffix("cpu")), memory_bytes(memory))
    except ValueError as error:
        raise UsageError(f"--add {text}: {error}", hint="for example --add 4cpu,8Gi") from None


# ---- what is told ---------------------------------------------------------------------------------------------------------


def _explained(explanation: Explanation) -> dict[str, Any]:
    pod = explanation.pod
    return {
        "pod": pod.meta.key,
        "node": pod.node or None,
        "decision": pod.decision or None,
        "unplaced": pod.unplaced or None,
        "wouldFit": list(explanation.remedies),
        "nodes": [
            {
                "name": item.node,
                "fits": not item.objections,
                "filters": dict(item.objections),
                "scores": dict(item.scores),
                "total": item.total,
            }
            for item in explanation.verdicts
        ],
    }


def _explanation_text(explanation: Explanation, *, wide: bool) -> str:
    from controller.cli.output import table
    from controller.decide.schedule.scores import WEIGHTS
    from controller.model.text import printable

    pod = explanation.pod
    lines = [f"pod {pod.meta.key} is on {pod.node}" if pod.node else f"pod {pod.meta.key} has no node"]
    if pod.decision:
        lines.append(f"chosen by: {printable(pod.decision)}")
    if pod.unplaced and not pod.node:
        lines.append(f"because:   {printable(pod.unplaced)}")
    lines.append("if it were placed now:" if pod.node else "now:")
    header = [
        "NODE",
        "POINTS",
        *([f"{name}×{weight}" for name, weight in WEIGHTS.items()] if wide else []),
        "OUT BECAUSE",
    ]
    rows = []
    for item in explanation.verdicts:
        why = "; ".join(f"{name}: {printable(text)}" for name, text in item.objections.items())
        scores = [str(item.scores.get(name, "-")) for name in WEIGHTS] if wide else []
        rows.append([item.node, "-" if item.objections else str(item.total), *scores, why or "-"])
    lines.append(table(header, rows))
    if explanation.remedies:
        lines += ["it would fit with:", *(f"  {remedy}" for remedy in explanation.remedies)]
    return "\n".join(lines)


def _outcome_text(outcome: Outcome) -> str:
    lines = [f"+ pod {pod.meta.key} would run on {pod.node}" for pod in outcome.placed]
    lines += [f"- pod {pod.meta.key} would no longer run on {pod.node}" for pod in outcome.gone]
    lines += [f"! pod {pod.meta.key} would be gone with {pod.node}: nothing replaces it" for pod in outcome.stuck]
    lines += [f"! pod {pod.meta.key} would run nowhere: {item.summary}" for pod, item in outcome.unplaced]
    lines += [f"! {line}" for line in outcome.refused]
    if not outcome.at_rest:
        lines.append("! it would not come to rest")
    counts = f"{len(outcome.placed)} placed, {len(outcome.gone)} gone, {len(outcome.unplaced)} nowhere"
    if outcome.stuck:
        counts += f", {len(outcome.stuck)} not replaced"
    return "\n".join([*lines, *_load(outcome.world), counts])


def _load(world: World) -> list[str]:
    """How full each node would be."""
    from collections import Counter

    from controller.cli.output import table
    from controller.decide.pods import is_active
    from controller.decide.shapes import Shapes
    from controller.model.cluster import Seen
    from controller.model.quantity import format_cpu

    shapes = Shapes(world)
    cpu_m: Counter[str] = Counter()
    memory_bytes: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for pod in world.pods.values():
        shape = shapes.of(pod) if pod.node and is_active(pod) else None
        if shape is not None:
            cpu_m[pod.node] += shape.cpu_m
            memory_bytes[pod.node] += shape.memory_bytes
            count[pod.node] += 1
    rows = []
    for name in sorted(world.nodes):
        seen = world.sightings.get(name)
        if isinstance(seen, Seen):
            room = seen.capacity
            cpu = f"{format_cpu(cpu_m[name])}/{format_cpu(room.cpu_m)}"
            memory = f"{memory_bytes[name] // 2**20}Mi/{room.memory_bytes // 2**20}Mi"
            rows.append([name, str(count[name]), cpu, memory])
        else:
            rows.append([name, "-", "-", "-"])
    return [table(["NODE", "PODS", "CPU ASKED FOR", "MEMORY ASKED FOR"], rows)] if rows else []
