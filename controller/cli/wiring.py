"""Puts the parts together for one command: context → store, inventory, fleet, controller. Imports what is heavy when it is needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from controller.act.settings import Context, executable_inventories, find_context, now, vault_ids
from controller.cli.config import Config
from controller.cli.contexts import Chosen, chosen
from controller.cli.running import command_words
from controller.model.cluster import Cluster, Moment, Settings, World
from controller.model.errors import StoreError

if TYPE_CHECKING:
    from controller.act.bell import Bell
    from controller.act.fleet import Deadlines, Deployer, Fleet
    from controller.act.inventory import VaultKeys
    from controller.act.secrets import Sealer
    from controller.act.store import Noted, Store
    from controller.act.transport import Session
    from controller.act.transports import TransportByHost
    from controller.loop import Controller
    from controller.model.inventory import Host, Inventory
    from nodeagent.protocol import Hello


@dataclass
class Wiring:
    """The parts of one command, made when first asked for."""

    context: Context
    settings: Settings
    vault_ids: tuple[str, ...] = ()
    allow_executables: bool = False
    config: Config = field(default_factory=Config)

    @classmethod
    def of(
        cls,
        context_dir: str,
        inventory: Sequence[str] | None,
        settings: Settings | None = None,
        vault: Sequence[str] | None = None,
        executables: bool = False,
    ) -> Wiring:
        found = chosen() or Chosen("", Path(context_dir))
        entry = found.entry
        context = find_context(context_dir, inventory or (), configured=entry.inventory)
        return cls(
            context,
            replace(settings or Settings(), host_paths=context.host_paths),
            tuple(vault or vault_ids() or entry.vault_ids),
            executables or executable_inventories() or entry.allow_executables,
            found.config,
        )

    @cached_property
    def store(self) -> Store:
        """Made on first use where an inventory is at hand; a read in an empty context is an error that says how to begin."""
        from controller.act.actor import actor
        from controller.act.store import Bounds, Store

        return Store(
            self.context.store,
            create=bool(self.context.inventory),
            actor=actor(command_words()),
            bounds=Bounds(**self.config.history),  # type: ignore[arg-type]  # checked when it was read
        )

    @cached_property
    def sealer(self) -> Sealer:
        from controller.act.secrets import Sealer

        return Sealer.load(self.context.key, create=not self.context.key.exists() and not self._has_secrets())

    def inventory(self) -> Inventory:
        """Read anew each time: it may change while `watch` runs."""
        from controller.act.inventory import load_inventory

        return load_inventory(
            self.context.inventory_sources(), allow_executables=self.allow_executables, vault=self._vault_keys
        )

    def select(self, pattern: str, *, others: bool = False) -> Sequence[Host]:
        """The inventory's nodes that a pattern names. Raises NotFound when there are none.

        Args:
            others: also hosts that are no nodes and can be reached by SSH.
        """
        from controller.act.inventory import read_pattern
        from controller.model.errors import NotFound
        from controller.model.inventory_connection import has_other_means

        named = self.inventory().select(read_pattern(pattern))
        hosts = [host for host in named if host.is_node or (others and not has_other_means(host))]
        if not named:
            raise NotFound(f"no host matches {pattern!r}", hint="sshoal inventory graph shows what is there")
        if not hosts:
            raise NotFound(
                f"no host that {pattern!r} matches is a node",
                hint="sshoal_node or ansible_connection says so: docs/inventory.md",
            )
        return hosts

    def world(self) -> World:
        """The records, with no sightings: for verbs and for views of what is stored."""
        return self.store.load().world(Cluster(self.store.cluster_id, self.settings))

    def now(self) -> Moment:
        return now()

    @contextlib.contextmanager
    def noted(self, *objects: str, node: str = "") -> Iterator[Noted]:
        """Records this command and how it ended, where it does not change the store by itself. Arguments that may hold secrets stay out.

        What cannot be recorded is told, and done all the same: a full disk here must not keep anybody out of a container.
        """
        from controller.act.store import Noted

        noted = Noted()
        with contextlib.ExitStack() as stack:
            if self.context.store.exists():
                try:
                    noted = stack.enter_context(self.store.noted(command_words(), objects, node=node))
                except StoreError as error:
                    print(f"note: this is not recorded: {error.message}", file=sys.stderr)
            yield noted

    @contextlib.asynccontextmanager
    async def transport(self) -> AsyncIterator[TransportByHost]:
        """SSH itself, with this context's known hosts."""
        from controller.act.hostkeys import KnownHosts
        from controller.act.lastaddresses import LastAddresses
        from controller.act.transports import TransportByHost

        home = Path.home() / ".ssh"
        transport = TransportByHost(
            KnownHosts(self.context.known_hosts, [home / "known_hosts"]),
            ssh_directory=home,
            addresses=LastAddresses(self.context.cache / "addresses"),
        )
        try:
            yield transport
        finally:
            await transport.close()

    @contextlib.asynccontextmanager
    async def fleet(self, deadlines: Deadlines | None = None, *, deploy: bool = True) -> AsyncIterator[Fleet]:
        """Connections to hosts, closed at the end. Without `deploy`, nothing is installed on a host."""
        from controller.act.bootstrap import AgentDeployer
        from controller.act.fleet import Deadlines, Fleet

        deployer: Deployer = (
            AgentDeployer(self.context.cache, lambda: self.store.cluster_id) if deploy else _NoDeployer()
        )
        async with self.transport() as transport, Fleet(transport, deployer, deadlines or Deadlines()) as fleet:
            yield fleet

    def observing(self, fleet: Fleet, bell: Bell | None = None) -> Controller:
        """A controller for looking only: without the lock, it must not run passes."""
        from controller.loop import Controller

        return Controller(self.store, fleet, self.sealer, self.inventory, now, self.settings, bell)

    @contextlib.asynccontextmanager
    async def observer(self, deadlines: Deadlines | None = None) -> AsyncIterator[Controller]:
        """As `observing`, with a fleet of its own, which installs nothing on hosts."""
        async with self.fleet(deadlines, deploy=False) as fleet:
            yield self.observing(fleet)

    @contextlib.asynccontextmanager
    async def controller(self, deadlines: Deadlines | None = None) -> AsyncIterator[Controller]:
        """A controller that holds the pass lock. Raises AnotherController, InventoryError."""
        import asyncio

        from controller.act.bell import Bell
        from controller.act.lock import pass_lock

        with pass_lock(self.context.lock), Bell(self.context.bell) as bell:
            async with self.fleet(deadlines) as fleet:
                from controller.act.transports import load_transports

                hosts = self.inventory().nodes
                # Before the thread: side by side, either import would take as long as both
                load_transports(hosts.values())
                fleet.begin(hosts)
                # The greater part of the program, while servers answer
                await asyncio.to_thread(import_module, "controller.loop")
                yield self.observing(fleet, bell)

    @cached_property
    def _vault_keys(self) -> VaultKeys | None:
        """Kept over rereadings of the inventory: a password is asked for once."""
        if not self.vault_ids:
            return None
        from getpass import getpass

        from controller.act.inventory import VaultKeys

        prompt = (lambda label: getpass(f"Vault password ({label}): ")) if sys.stdin.isatty() else None
        return VaultKeys.from_specs(self.vault_ids, prompt)

    def _has_secrets(self) -> bool:
        """A context that holds secrets must not get a new key: that would hide that the old one is lost."""
        return any(record.meta.kind == "Secret" for record in self.store.load().declared.values())


@dataclass(frozen=True, slots=True)
class _NoDeployer:
    """For commands that only look: whichever agent runs will do, none is installed."""

    def may_stay(self, hello: Hello) -> bool:
        return True

    async def deploy(self, session: Session, host: Host) -> None:
        from controller.model.errors import HostNotReady

        raise HostNotReady(
            host.name,
            "no agent runs there yet",
            hint="the next pass installs it: sshoal reconcile",
        )
