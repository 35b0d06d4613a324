"""`node forget` when the agent says no: whose host it is decides whether its things are removed without it. A real store, no host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.act import bootstrap
from controller.act.settings import Context
from controller.act.store import Store
from controller.cli.forget import forget
from controller.cli.wiring import Wiring
from controller.model.cluster import Settings
from controller.model.errors import AgentRefused, HostError, HostNotReady
from nodeagent import protocol
from tests import builders


class Host:
    """Notes how it was cleaned: by its agent, or by the script that asks nobody. `refuses`: the code that the agent answers with."""

    def __init__(self, refuses: str, *, is_down: bool = False, owner: str = "") -> None:
        self.refuses = refuses
        self.is_down = is_down
        self.owner = owner  # as its agent has kept it
        self.cleaned_by: list[str] = []

    async def clean(self, session: object, request: object, **_: Any) -> None:
        if request is not None and self.is_down:
            raise HostNotReady("n1", "no agent answers")
        if request is not None and self.refuses:
            raise AgentRefused("n1", self.refuses, "the agent's words")
        self.cleaned_by.append("script" if request is None else "agent")

    async def examine(self, *_: object) -> SimpleNamespace:
        return SimpleNamespace(facts=SimpleNamespace(owner=self.owner))


@contextlib.asynccontextmanager
async def a_fleet(self: Wiring, **_: Any) -> AsyncIterator[SimpleNamespace]:
    async def session(host: object) -> None:
        return None

    yield SimpleNamespace(session=session)


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    """Of a store with one node."""
    context = Context(tmp_path, ())
    Store(context.store, create=True).edit([builders.node("n1")])
    monkeypatch.setattr(Wiring, "fleet", a_fleet)
    return Wiring(context, Settings())


def forgotten(wiring: Wiring, host: Host, monkeypatch: pytest.MonkeyPatch, *, force: bool = False) -> list[str]:
    monkeypatch.setattr(bootstrap, "forget", host.clean)
    monkeypatch.setattr("controller.act.examine.examine", host.examine)
    return asyncio.run(forget(wiring, wiring.world().nodes["n1"], force=force))


FENCE = (
    protocol.OWNED,
    protocol.OLD_EPOCH,
    protocol.FORKED,
    protocol.OLD_SERIAL,
    protocol.BAD_REQUEST,
    "a code of a later version",
)


@pytest.mark.parametrize("code", FENCE)
def test_what_an_agent_refuses_to_this_controller_is_not_done_without_it(
    code: str, wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old or copied store would remove the pods that the newer one gave orders for."""
    host = Host(code)
    with pytest.raises(HostError, match=r"not forgotten.*the agent's words") as caught:
        forgotten(wiring, host, monkeypatch)
    assert host.cleaned_by == []
    assert "--force drops only the records" in caught.value.hint
    assert "n1" in wiring.world().nodes


@pytest.mark.parametrize("code", FENCE)
def test_by_force_only_the_records_of_such_a_host_are_dropped(
    code: str, wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(code)
    said = forgotten(wiring, host, monkeypatch, force=True)
    assert host.cleaned_by == []
    assert "n1 was not cleaned: the agent's words" in said
    assert "n1" not in wiring.world().nodes


@pytest.mark.parametrize(
    ("code", "cleaned_by"), [("", "agent"), (protocol.FAILED_CODE, "script"), (protocol.UNKNOWN_VERB, "script")]
)
def test_what_an_agent_does_not_manage_is_done_without_it(
    code: str, cleaned_by: str, wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(code)
    assert "node/n1 forgotten" in forgotten(wiring, host, monkeypatch)
    assert host.cleaned_by == [cleaned_by]


def test_a_refusal_is_told_of_a_host_whose_pods_may_not_run_twice(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers: whether it is off is not the question."""
    monkeypatch.setattr("controller.cli.forget._claims", lambda *_: ["pod default/db-0"])
    with pytest.raises(HostError, match=r"the agent's words.*pod default/db-0, which would then run twice") as caught:
        forgotten(wiring, Host(protocol.OLD_EPOCH), monkeypatch, force=True)
    assert "confirm-dead" not in caught.value.hint


def test_a_host_of_another_cluster_is_left_alone_while_its_agent_is_down(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken over meanwhile, and cannot say so."""
    host = Host("", is_down=True, owner="another")
    with pytest.raises(HostError, match=r"not forgotten.*obeys cluster another") as caught:
        forgotten(wiring, host, monkeypatch)
    assert (host.cleaned_by, "--force drops only the records" in caught.value.hint) == ([], True)
    for owner in ("", wiring.store.cluster_id):
        host.owner = owner
        forgotten(wiring, host, monkeypatch)
        wiring.store.edit([builders.node("n1")])
    assert host.cleaned_by == ["script", "script"]


def test_what_a_pass_noted_while_a_person_was_asked_counts(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node had been confirmed dead, then answered and was given its pods again: now they may run there."""
    read = replace(wiring.world().nodes["n1"], cordoned=True, confirmed_dead="powered-off")
    wiring.store.edit([read])
    read = wiring.world().nodes["n1"]
    wiring.store.edit([replace(read, confirmed_dead="")])
    monkeypatch.setattr("controller.cli.forget._claims", lambda *_: ["pod default/db-0"])
    monkeypatch.setattr(bootstrap, "forget", Host(protocol.OLD_EPOCH).clean)
    with pytest.raises(HostError, match=r"which would then run twice"):
        asyncio.run(forget(wiring, read, force=True))
    assert "n1" in wiring.world().nodes


def test_what_a_pass_wrote_while_a_person_was_asked_is_no_conflict(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = wiring.world().nodes["n1"]
    wiring.store.edit([replace(read, digest="newer")])
    monkeypatch.setattr(bootstrap, "forget", Host("").clean)
    assert "node/n1 forgotten" in asyncio.run(forget(wiring, read, force=False))
