"""Commands that make an object without a manifest: create namespace, create job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options
from controller.cli.running import run
from controller.cli.workloads import Wait

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring
    from controller.decide.verbs import Applied
    from controller.model.cluster import World
    from controller.model.workloads import CronJob

create_app = typer.Typer(help="Create an object without a manifest.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(create_app, name="create")


@create_app.command("namespace")
def create_namespace(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and -.")],
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Create a namespace.

    Examples:
        sshoal create namespace staging
        sshoal --context prod create namespace shop
    """
    from controller.cli.carry import commit
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    applied = _applied(wiring, wiring.world(), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    commit(wiring, [applied.change] if applied.change is not None else [])
    print(f"namespace/{name} {applied.outcome}")


@create_app.command("job")
def create_job(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the job.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="With --image: what to run, if not its own.")
    ] = None,
    from_: Annotated[
        str, typer.Option("--from", metavar="cronjob/NAME", help="Run what this cron job runs, now and once.")
    ] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Run this image once.")] = "",
    namespace: options.Namespace = "default",
    wait: Wait = True,
    timeout: options.Timeout = "2m",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Create a job: one more run of a cron job, or an image to be run once. Waits as apply does.

    Examples:
        sshoal create job report-now --from cronjob/report
        sshoal create job migrate --image registry.example/shop:2.1 -- ./manage.py migrate
    """
    from controller.cli.carry import carry_out
    from controller.cli.output import duration_s
    from controller.cli.wiring import Wiring
    from controller.cli.workloads import tell_warnings
    from controller.decide.cronjob import by_hand, owned_by
    from controller.model.errors import UsageError

    if bool(from_) == bool(image):
        raise UsageError("of what?", hint="--from cronjob/NAME, or --image IMAGE")
    if from_ and command:
        raise UsageError("a run of a cron job has its command", hint="--image IMAGE -- COMMAND runs another one")
    budget_s = duration_s(timeout) if wait else 0.0
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    world = wiring.world()
    if any(
        job.meta.name == name and job.meta.namespace == namespace
        for job in world.workloads.values()
        if job.meta.kind == "Job"
    ):
        raise UsageError(f"there is a job {name} already", hint=f"another name, or sshoal delete job/{name}")
    cron = _cron_job(world, from_, namespace) if from_ else None
    wanted = by_hand(cron, name) if cron is not None else _job_of(image, command or [], name, namespace)
    applied = _applied(wiring, world, wanted)
    tell_warnings([applied])
    changes = [change for change in (applied.change, applied.audit) if change is not None]
    if cron is not None:
        changes = [owned_by(cron, change) if change is applied.change else change for change in changes]
    target = ("Job", namespace, name)
    run(carry_out(wiring, changes, [f"job.batch/{name} created"], lambda carry: carry.wait_for([target], budget_s)))


def _cron_job(world: World, word: str, namespace: str) -> CronJob:
    from controller.cli.names import parse_target
    from controller.decide import verbs
    from controller.model.errors import UsageError
    from controller.model.workloads import CronJob

    record = verbs.find(world, *parse_target(word, namespace))
    if not isinstance(record, CronJob):
        raise UsageError(f"--from {word}: is no cron job", hint="--from cronjob/NAME")
    if record.meta.deleting is not None:
        raise UsageError(f"cron job {record.meta.name} is being deleted")
    return record


def _job_of(image: str, command: list[str], name: str, namespace: str) -> dict[str, Any]:
    container = {"name": name, "image": image, **({"command": command} if command else {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def _applied(wiring: Wiring, world: World, wanted: dict[str, Any]) -> Applied:
    """What declaring this one object comes to. Raises ManifestError."""
    from controller.decide import verbs
    from controller.model import manifest

    loaded = manifest.load(json.dumps(wanted), "the command line")
    [applied] = verbs.apply(world, loaded.manifests, lambda values: "", wiring.now())  # it holds no secret
    return applied
