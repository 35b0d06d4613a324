"""Commands that change desired state: apply, plan, scale, rollout. Each is one transaction, then passes carry it out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options
from controller.cli.request import Request, takes_request
from controller.cli.running import run

if TYPE_CHECKING:
    from controller.cli.carry import Carry
    from controller.cli.wiring import Wiring
    from controller.decide.verbs import Applied
    from controller.model.cluster import World
    from controller.model.errors import ManifestError
    from controller.model.manifest import Manifest
    from controller.model.plan import Change

    Texts = list[tuple[str, str]]

rollout_app = typer.Typer(
    help="Look at, undo, pause, resume or restart a rollout.", no_args_is_help=True, rich_markup_mode=None
)

_WAITED_FOR = ("Deployment", "ReplicaSet", "Pod", "StatefulSet", "DaemonSet", "Job", "CronJob")

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(plan)
    app.command()(scale)
    app.add_typer(rollout_app, name="rollout")


def apply(
    filename: options.Files,
    recursive: options.Recursive = False,
    lenient: options.Lenient = False,
    namespace: options.Namespace = "default",
    wait: Wait = True,
    timeout: options.Timeout = "2m",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Declare objects, and wait until they are there.

    Examples:
        sshoal apply -f web.yaml -i hosts.ini
        sshoal apply -f k8s/ -n shop --timeout 5m
        kustomize build . | sshoal apply -f - --lenient
    """
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring

    budget_s = duration_s(timeout) if wait else 0.0
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    wiring.inventory()  # a broken inventory shall be told before anything is stored
    texts = read_texts(filename, recursive)
    # A cluster's first manifests are read before anything is made: mistakes leave nothing behind. Later ones are while hosts are called.
    first = None if wiring.context.store.exists() else load_manifests(texts, lenient, namespace)
    run(apply_texts(wiring, texts, lenient, namespace, budget_s, first))


async def apply_texts(
    wiring: Wiring, texts: Texts, lenient: bool, namespace: str, budget_s: float, known: list[Manifest] | None = None
) -> None:
    """`known`: what the texts hold, where they were read before."""
    from controller.cli.carry import carrying, commit
    from controller.cli.names import resource
    from controller.decide import verbs

    async with carrying(wiring) as carry:
        manifests = load_manifests(texts, lenient, namespace) if known is None else known
        applied = verbs.apply(wiring.world(), manifests, wiring.sealer.hash, wiring.now())
        secrets = {
            f"{manifest.object.metadata.namespace}/{manifest.object.metadata.name}": manifest.source
            for manifest in manifests
            if manifest.object.kind == "Secret"
        }
        # Of those whose records change: these are compared with what another user did meanwhile, values alone are not.
        fresh = [f"{one.namespace}/{one.name}" for one in applied if one.kind == "Secret" and one.change is not None]
        sealed = {key: wiring.sealer.seal(key, verbs.secret_values(secrets[key])) for key in fresh}
        tell_warnings(applied)
        commit(wiring, [change for one in applied for change in (one.change, one.audit) if change], secrets=sealed)
        for one in applied:
            print(f"{resource(one.kind)}/{one.name} {one.outcome}")
        targets = [(one.kind, one.namespace, one.name) for one in applied if one.kind in _WAITED_FOR]
        await carry.wait_for(targets, budget_s)


def plan(
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename", "-f", metavar="PATH", help="Manifests to plan for; none: what the next pass would do."
        ),
    ] = None,
    recursive: options.Recursive = False,
    lenient: options.Lenient = False,
    namespace: options.Namespace = "default",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Show what apply would do, with reasons. Changes nothing.

    Examples:
        sshoal plan -f web.yaml
        sshoal plan       # what the next pass would do
    """
    from controller.cli.carry import preview
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    changes = changes_of(wiring, read_texts(filename, recursive), lenient, namespace) if filename else []
    print(run(preview(wiring, changes)))


def changes_of(wiring: Wiring, texts: Texts, lenient: bool, namespace: str) -> list[Change]:
    """What `apply` would commit. Raises ManifestError, UsageError."""
    from controller.decide import verbs

    manifests = load_manifests(texts, lenient, namespace)
    applied = verbs.apply(wiring.world(), manifests, wiring.sealer.hash, wiring.now())
    tell_warnings(applied)
    return [one.change for one in applied if one.change is not None]


@takes_request
def scale(
    request: Request,
    *,
    replicas: Annotated[int, typer.Option(metavar="N", help="How many pods there shall be.")],
    wait: Wait = True,
    timeout: options.Timeout = "2m",
) -> None:
    """Set how many replicas a deployment, replica set or stateful set has.

    Examples:
        sshoal scale deployment/web --replicas 12
        sshoal scale statefulset/db --replicas 3 --no-wait
    """
    from controller.decide import verbs

    change(request, "scaled", lambda world, record, _: verbs.scale(world, record, replicas), wait, timeout)


@rollout_app.command("status")
@takes_request
def rollout_status(
    request: Request,
    *,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", "-w", help="Wait until the rollout is complete.")] = True,
    timeout: options.Timeout = "2m",
) -> None:
    """Tell how far a rollout is; exit code 3 when it is not complete in time.

    Examples:
        sshoal rollout status deployment/web
        sshoal rollout status deployment/web --no-watch
    """
    from controller.cli.carry import carry_out
    from controller.cli.output import duration_s
    from controller.decide import verbs

    wiring = request.wiring()
    identity = request.rolled()
    verbs.find(wiring.world(), *identity)
    budget_s = duration_s(timeout)

    async def look(carry: Carry) -> None:
        if watch:
            await carry.wait_for([identity], budget_s, required=True)
        else:
            await carry.tell([identity])

    run(carry_out(wiring, [], [], look))


@rollout_app.command("history")
@takes_request
def rollout_history(
    request: Request,
    *,
    revision: Annotated[int, typer.Option(metavar="N", help="The pod template of this revision; 0: the list.")] = 0,
) -> None:
    """List the revisions of a deployment, daemon set or stateful set.

    Examples:
        sshoal rollout history deployment/web
        sshoal rollout history statefulset/db -n shop --revision 2
    """
    from controller.cli.names import resource
    from controller.cli.output import table
    from controller.decide import verbs

    world = request.wiring().world()
    record = verbs.find(world, *request.rolled())
    revisions = verbs.history(world, record)
    if revision:
        from controller.cli.describe import template_lines

        template = verbs.revision(record, revisions, revision).template
        print(f"{resource(record.meta.kind)}/{record.meta.name} with revision #{revision}")
        print("\n".join(template_lines(template)))
        return
    rows = [[str(one.number), one.name, one.change_cause] for one in revisions]
    print(table(["REVISION", "REPLICASET" if record.meta.kind == "Deployment" else "NAME", "CHANGE-CAUSE"], rows))


@rollout_app.command("undo")
@takes_request
def rollout_undo(
    request: Request,
    *,
    to_revision: Annotated[int, typer.Option(metavar="N", help="Which revision; 0: the one before.")] = 0,
    wait: Wait = True,
    timeout: options.Timeout = "2m",
) -> None:
    """Go back to an earlier revision.

    Examples:
        sshoal rollout undo deployment/web
        sshoal rollout undo deployment/web --to-revision 3
    """
    from controller.decide import verbs

    request.rolled()
    change(request, "rolled back", lambda world, record, _: verbs.undo(world, record, to_revision), wait, timeout)


@rollout_app.command("restart")
@takes_request
def rollout_restart(request: Request, *, wait: Wait = True, timeout: options.Timeout = "2m") -> None:
    """Replace all pods, by the rules of a rollout.

    Examples:
        sshoal rollout restart deployment/web
        sshoal rollout restart daemonset/logs --timeout 10m
    """
    from controller.decide import verbs

    request.rolled()
    change(request, "restarted", lambda _, record, text: verbs.restart(record, text), wait, timeout)


@rollout_app.command("pause")
@takes_request
def rollout_pause(request: Request) -> None:
    """Stop a rollout where it is.

    Examples:
        sshoal rollout pause deployment/web
        sshoal rollout pause deployment/web -n shop
    """
    from controller.decide import verbs

    request.deployment()
    change(request, "paused", lambda _, record, __: verbs.pause(record, True), wait=False, timeout="0s")


@rollout_app.command("resume")
@takes_request
def rollout_resume(request: Request, *, wait: Wait = True, timeout: options.Timeout = "2m") -> None:
    """Let a paused rollout go on.

    Examples:
        sshoal rollout resume deployment/web
        sshoal rollout resume deployment/web --no-wait
    """
    from controller.decide import verbs

    request.deployment()
    change(request, "resumed", lambda _, record, __: verbs.pause(record, False), wait, timeout)


# ---- helpers --------------------------------------------------------------------------------------------------------------


def change(
    request: Request,
    done: str,
    verb: Callable[[World, Any, str], Sequence[Change]],
    wait: bool,
    timeout: str,
) -> None:
    """One verb on one object: commit its changes, say so, wait."""
    from datetime import UTC, datetime

    from controller.cli.carry import carry_out
    from controller.cli.names import resource
    from controller.cli.output import duration_s
    from controller.decide import verbs

    budget_s = duration_s(timeout) if wait else 0.0
    wiring = request.wiring()
    identity = request.identity()
    world = wiring.world()
    record = verbs.find(world, *identity)
    text = datetime.fromtimestamp(wiring.now().wall_s, UTC).isoformat(timespec="seconds")
    changes = verb(world, record, text)
    told = f"{resource(record.meta.kind)}/{record.meta.name} {done if changes else 'unchanged'}"
    run(carry_out(wiring, changes, [told], lambda carry: carry.wait_for([identity], budget_s)))


def tell_warnings(applied: Sequence[Applied]) -> None:
    """On standard error, as kubectl does."""
    for one in applied:
        for warning in one.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def load_manifests(texts: Texts, lenient: bool, namespace: str) -> list[Manifest]:
    """All manifests of the texts; notes go to standard error. Raises ManifestError, also when no text holds an object."""
    from controller.model import manifest
    from controller.model.errors import ManifestError

    manifests: list[Manifest] = []
    failed: list[ManifestError] = []
    noted = False
    for name, text in texts:
        try:
            loaded = manifest.load(text, name, lenient=lenient, namespace=namespace)
        except ManifestError as error:
            failed.append(error)
            continue
        manifests += loaded.manifests
        for warning in loaded.warnings:
            noted = True
            print(f"note: {warning}", file=sys.stderr)
    if failed:
        raise _all_of(failed, [manifest.title(one.object) for one in manifests])
    if not manifests and not noted:
        names = [name for name, _ in texts[:3]] + ["…"] * (len(texts) > 3)
        raise ManifestError(f"{', '.join(names)}: no objects in {'it' if len(texts) == 1 else 'them'}")
    if not manifests:
        print("note: nothing is left to do: every object was left out", file=sys.stderr)
    return manifests


def _all_of(failed: Sequence[ManifestError], good: list[str]) -> ManifestError:
    """One error for several files. `good`: the objects of those that are right."""
    from controller.model.errors import ManifestError
    from controller.model.manifest import lenient_hint

    together = ManifestError.several([problem for error in failed for problem in error.problems])
    together.hint = ""
    runnable = [name for error in failed if error.runnable is not None for name in error.runnable]
    if all(error.runnable is not None for error in failed):
        together.hint = lenient_hint([*good, *runnable])
    return together


def read_texts(filenames: Sequence[str], recursive: bool = False) -> Texts:
    """(where it is from, text) of files, directories (their .yaml, .yml and .json) and standard input."""
    from controller.model.errors import UsageError

    texts = []
    for name in filenames:
        if name == "-":
            texts.append(("standard input", sys.stdin.read()))
            continue
        if not name:  # as a path it would be the working directory
            raise UsageError("-f is given an empty name", hint="is a variable of your shell unset?")
        if name.startswith(("http://", "https://")):
            raise UsageError(f"{name} is not fetched: -f takes files", hint=f"curl -fsSL {name} | sshoal … -f -")
        for file in _files_of(name, recursive):
            try:
                texts.append((str(file), file.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                raise UsageError(f"{file} is not UTF-8 text") from None
            except OSError as error:
                raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return texts


def _files_of(name: str, recursive: bool) -> list[Path]:
    """The file of this name, or those that hold manifests in the directory. Raises UsageError when it holds none."""
    from controller.model.errors import UsageError

    path = Path(name)
    try:
        if not path.is_dir():
            return [path]
        here = list(path.iterdir())
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    found = sorted(
        file
        for file in (path.rglob("*") if recursive else here)
        if file.suffix in (".yaml", ".yml", ".json") and not file.is_dir()
    )
    if not found:
        below = not recursive and any(file.is_dir() for file in here)
        hint = "-R looks into its directories too" if below else ""
        raise UsageError(f"{name} holds no .yaml, .yml or .json files", hint=hint)
    return found
