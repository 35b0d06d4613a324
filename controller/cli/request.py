"""What every verb on one object is told on the command line, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring


@dataclass(frozen=True, slots=True)
class Request:
    """Which object, and where its cluster is. The fields are options as Typer reads them."""

    target: Annotated[
        list[str], typer.Argument(metavar="KIND/NAME", help="For example deployment/web; deployment web is the same.")
    ]
    namespace: options.Namespace = "default"
    inventory: options.Inventory = None
    vault_id: options.VaultIds = None
    allow_executable_inventory: options.Executables = False
    context_dir: options.ContextDir = ""

    def wiring(self) -> Wiring:
        from controller.cli.wiring import Wiring

        return Wiring.of(
            self.context_dir, self.inventory, vault=self.vault_id, executables=self.allow_executable_inventory
        )

    def identity(self) -> tuple[str, str, str]:
        """(kind, namespace, name). Raises UsageError."""
        from controller.cli.names import parse_one

        return parse_one(self.target, self.namespace)

    def rolled(self) -> tuple[str, str, str]:
        """As identity, of what can have a rollout. Raises UsageError."""
        return self._of(("Deployment", "DaemonSet", "StatefulSet"), "has no rollout")

    def deployment(self) -> tuple[str, str, str]:
        """As identity, of what can be paused. Raises UsageError."""
        return self._of(("Deployment",), "cannot be paused")

    def _of(self, kinds: tuple[str, ...], why: str) -> tuple[str, str, str]:
        from controller.model.errors import UsageError

        identity = self.identity()
        if identity[0] not in kinds and "/" not in self.target[0] and len(self.target) == 1:
            words = f"{self.target[0]!r} alone is the name of a pod, and a Pod {why}"
            raise UsageError(words, hint=f"for example {kinds[0].lower()}/web")
        if identity[0] not in kinds:
            raise UsageError(f"a {identity[0]} {why}", hint=f"of {', '.join(kind.lower() for kind in kinds)}")
        return identity


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """A command(request, *, own options) as Typer wants it: one parameter for each field of Request and each own option."""
    shared = _keywords(Request)
    own = _keywords(command)[1:]

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        request = Request(**{one.name: given.pop(one.name) for one in shared})
        command(request, **given)

    target, *others = shared
    parameters = [target, *own, *others]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def _keywords(described: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(described, eval_str=True).parameters.values()
    return [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
