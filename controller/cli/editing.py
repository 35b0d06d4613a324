"""Commands on what is declared: diff, edit, set image. What an object looks like as text stands in difference.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options
from controller.cli.request import Request, takes_request
from controller.cli.running import run
from controller.cli.workloads import Wait

if TYPE_CHECKING:
    from pathlib import Path

    from controller.cli.wiring import Wiring
    from controller.model.cluster import Record, Ref, World
    from controller.model.manifest import Manifest
    from controller.model.plan import Change


set_app = typer.Typer(help="Change one thing of a declared object.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.command()(diff)
    app.command()(edit)
    app.add_typer(set_app, name="set")


def diff(
    filename: options.Files,
    recursive: options.Recursive = False,
    lenient: options.Lenient = False,
    namespace: options.Namespace = "default",
    context_dir: options.ContextDir = "",
) -> None:
    """Show what apply would change in what is declared, as a unified diff. Exit code 1 when they differ, 2 or more when that is not known.

    Examples:
        sshoal diff -f web.yaml
        sshoal diff -f k8s/ -n shop
    """
    from controller.cli.wiring import Wiring
    from controller.cli.workloads import load_manifests, read_texts
    from controller.model.errors import SshoalError

    try:
        manifests = load_manifests(read_texts(filename, recursive), lenient, namespace)
        found = _differences(Wiring.of(context_dir, None), manifests)
    except SshoalError as error:
        error.exit_code = max(error.exit_code, 2)  # 1 says that they differ
        raise
    if found:
        print("\n".join(found))
        sys.exit(1)


@takes_request
def edit(
    request: Request, *, lenient: options.Lenient = False, wait: Wait = True, timeout: options.Timeout = "2m"
) -> None:
    """Change a declared object in your editor ($SSHOAL_EDITOR, $EDITOR, or vi); then as apply. A text that is refused is kept in a file.

    Examples:
        sshoal edit deployment/web
        sshoal edit configmap/settings -n shop --no-wait
    """
    from controller.cli.output import duration_s
    from controller.cli.workloads import apply_texts
    from controller.decide import verbs
    from controller.model.errors import NotSettled, SshoalError

    budget_s = duration_s(timeout) if wait else 0.0
    wiring = request.wiring()
    wiring.inventory()  # a broken one shall be told before the work is done
    identity = request.identity()
    world = wiring.world()
    record = verbs.find(world, *identity)
    _refuse_editing(world, record)
    before = _text(record)
    path = _edited(before, record)
    after = _read(path)
    if _content(after) in (_content(before), ""):
        path.unlink(missing_ok=True)
        print("edit cancelled, nothing changed", file=sys.stderr)
        return
    try:
        _check(wiring, after, identity, before, lenient)
        run(apply_texts(wiring, [("the edited text", after)], lenient, identity[1] or "default", budget_s))
    except NotSettled:
        path.unlink(missing_ok=True)  # it was accepted
        raise
    except SshoalError as error:
        error.hint = "; ".join(filter(None, (error.hint, f"your text is kept: {path}")))
        raise
    path.unlink(missing_ok=True)


@set_app.command("image")
def set_image(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND/NAME CONTAINER=IMAGE…", help="A workload, and the images of its containers; * is all of them."
        ),
    ],
    namespace: options.Namespace = "default",
    wait: Wait = True,
    timeout: options.Timeout = "2m",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Give containers of a workload another image, by the rules of a rollout. The next apply of its manifest writes what that says.

    Examples:
        sshoal set image deployment/web nginx=nginx:1.27
        sshoal set image cronjob/report '*=registry.example/report:2.1' -n shop
    """
    from controller.act.settings import now
    from controller.cli.difference import declared_object
    from controller.cli.workloads import change, load_manifests, tell_warnings
    from controller.cli.yamltext import dump
    from controller.decide import verbs
    from controller.decide.setimage import parse_images, with_images
    from controller.model.errors import UsageError

    images = parse_images([word for word in words if "=" in word])
    if not images:
        raise UsageError("which image?", hint="for example nginx=nginx:1.27, or '*=nginx:1.27' for all containers")
    target = [word for word in words if "=" not in word]
    if not target:
        raise UsageError("of which object?", hint=f"for example sshoal set image deployment/web {words[0]}")

    def declare(world: World, record: Record, _: str) -> list[Change]:
        _refuse_editing(world, record)
        present = declared_object(record)
        wanted = with_images(present, images)
        if wanted == present:
            return []
        manifests = load_manifests([("the changed object", dump(wanted))], False, namespace)
        applied = verbs.apply(world, manifests, lambda values: "", now())
        tell_warnings(applied)
        return [item for one in applied for item in (one.change, one.audit) if item]

    request = Request(target, namespace, inventory, vault_id, allow_executable_inventory, context_dir)
    change(request, "image updated", declare, wait, timeout)


# ---- diff ---------------------------------------------------------------------------------------------------------------


def _differences(wiring: Wiring, manifests: list[Manifest]) -> list[str]:
    from controller.cli.difference import unified
    from controller.decide import verbs
    from controller.model.errors import NotFound

    world = wiring.world()
    secrets = {
        (manifest.object.metadata.namespace, manifest.object.metadata.name): verbs.secret_values(manifest.source)
        for manifest in manifests
        if manifest.object.kind == "Secret"
    }
    hash_ = wiring.sealer.hash if secrets else lambda values: ""
    found = []
    for one in verbs.apply(world, manifests, hash_, wiring.now()):
        if one.change is None:
            continue
        try:
            present = verbs.find(world, one.kind, one.namespace, one.name)
        except NotFound:
            present = None
        secret = one.kind == "Secret"
        old = _stored_values(wiring, f"{one.namespace}/{one.name}") if secret and present is not None else {}
        new = secrets[one.namespace, one.name] if secret else {}
        found.append(unified(present, one.change.record, old, new))
    return [text for text in found if text]


def _stored_values(wiring: Wiring, key: str) -> dict[str, str]:
    sealed = wiring.store.sealed_secrets([key]).get(key)
    return wiring.sealer.unseal(key, *sealed).data if sealed else {}


# ---- edit ---------------------------------------------------------------------------------------------------------------


def _refuse_editing(world: World, record: Record) -> None:
    from controller.model.cluster import Node
    from controller.model.errors import UsageError

    if record.meta.kind == "Secret":
        raise UsageError("values of secrets are not shown, so not edited", hint="sshoal apply -f with the new values")
    if isinstance(record, Node):
        raise UsageError("nodes are described by the inventory", hint="node_labels and node_taints of the host")
    if record.meta.owner is not None:
        first = record.meta.owner
        while (above := _owner_of(world, first)) is not None:
            first = above
        owner = f"{first.kind.lower()}/{first.name}"
        raise UsageError(f"{record.meta.name} belongs to {owner}", hint=f"sshoal edit {owner}")


def _owner_of(world: World, owner: Ref) -> Ref | None:
    """Who owns an owner: the Deployment of a ReplicaSet, the CronJob of a Job."""
    record = world.replica_sets.get(owner.uid) or world.workloads.get(owner.uid)
    return record.meta.owner if record is not None else None


def _text(record: Record) -> str:
    from controller.cli.difference import declared_object
    from controller.cli.yamltext import dump

    return (
        "# Lines that begin with # do not count. Saved without a change, or empty: nothing is done.\n"
        "# Is the text refused, it is kept in this file.\n" + dump(declared_object(record))
    )


def _edited(text: str, record: Record) -> Path:
    """The file as the editor left it, readable by its owner alone. Raises UsageError when the editor fails."""
    import shlex
    import subprocess
    import tempfile
    from pathlib import Path

    from controller.act.settings import editor
    from controller.model.errors import UsageError

    words = shlex.split(editor())
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix=f"sshoal-{record.meta.name}-", suffix=".yaml", delete=False
    ) as file:
        file.write(text)
    path = Path(file.name)
    try:
        code = subprocess.run([*words, str(path)], check=False).returncode
    except OSError as error:
        path.unlink()
        raise UsageError(f"the editor {words[0]!r} cannot be started: {error.strerror}", hint="set $EDITOR") from None
    if code:
        raise UsageError(
            f"the editor {words[0]!r} ended with {code}: nothing is done", hint=f"your text is kept: {path}"
        )
    return path


def _read(path: Path) -> str:
    from controller.model.errors import UsageError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _content(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()


def _check(wiring: Wiring, text: str, identity: tuple[str, str, str], before: str, lenient: bool) -> None:
    """Refuses what apply would refuse, another object, and a record that somebody changed meanwhile."""
    from controller.cli.workloads import load_manifests
    from controller.decide import verbs
    from controller.model.errors import StoreConflict, UsageError

    manifests = load_manifests([("the edited text", text)], lenient, identity[1] or "default")
    found = [(one.object.kind, one.object.metadata.namespace, one.object.metadata.name) for one in manifests]
    if found != [identity]:
        raise UsageError("kind, namespace and name cannot be edited", hint="sshoal apply -f makes another object")
    world = wiring.world()
    if _text(verbs.find(world, *identity)) != before:
        raise StoreConflict(f"{identity[0].lower()} {identity[2]} was changed meanwhile", hint="edit it again")
    verbs.apply(world, manifests, wiring.sealer.hash, wiring.now())
