"""Where a context is found, and what it remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.act import settings
from controller.act.settings import find_context, remember_inventory
from controller.model.errors import UsageError


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSHOAL_CONTEXT", "SSHOAL_INVENTORY", "SSHOAL_VAULT_ID", "SSHOAL_ALLOW_EXECUTABLE_INVENTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_an_inventory_is_remembered_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cron runs elsewhere."""
    remember_inventory(find_context("context", ["hosts.ini", "a,b,"]))
    monkeypatch.chdir("/")
    assert find_context(str(tmp_path / "context")).inventory == (str(tmp_path / "hosts.ini"), "a,b,")
    assert (tmp_path / "context").stat().st_mode & 0o777 == 0o700


def test_a_given_inventory_wins_over_the_environment_and_that_over_the_remembered_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_inventory(find_context("context", ["/remembered"]))
    assert find_context("context").inventory_sources() == ("/remembered",)
    monkeypatch.setenv("SSHOAL_INVENTORY", "/one:/two")
    assert find_context("context").inventory_sources() == ("/one", "/two")
    assert find_context("context", configured=["/configured"]).inventory_sources() == ("/one", "/two")
    assert find_context("context", ["/given"]).inventory_sources() == ("/given",)
    monkeypatch.delenv("SSHOAL_INVENTORY")
    assert find_context("context", configured=["/configured"]).inventory_sources() == ("/configured",)


def test_no_inventory_is_told_with_the_command_that_makes_one() -> None:
    with pytest.raises(UsageError, match="no inventory") as caught:
        find_context("context").inventory_sources()
    assert "sshoal init" in caught.value.hint


def test_a_damaged_memory_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "context.json").write_text("{")
    with pytest.raises(UsageError, match=r"context\.json cannot be read"):
        find_context("context")
    assert (tmp_path / "context" / "context.json").read_text() == "{"


def test_all_files_of_a_context_lie_in_its_directory(tmp_path: Path) -> None:
    context = find_context("context")
    for path in (context.store, context.key, context.known_hosts, context.lock, context.cache):
        assert path.parent == tmp_path / "context"


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("yes", True), ("TRUE", True), ("0", False), ("", False)])
def test_programs_as_inventories_must_be_allowed(value: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not settings.executable_inventories()
    monkeypatch.setenv("SSHOAL_ALLOW_EXECUTABLE_INVENTORY", value)
    assert settings.executable_inventories() is allowed


def test_vault_ids_are_separated_by_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.vault_ids() == ()
    monkeypatch.setenv("SSHOAL_VAULT_ID", "dev@~/pass prod@/etc/pass")
    assert settings.vault_ids() == ("dev@~/pass", "prod@/etc/pass")


def test_the_time_is_that_of_this_boot() -> None:
    earlier, later = settings.now(), settings.now()
    assert earlier.boot_id == later.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert later.boottime_s >= earlier.boottime_s


def test_what_a_context_allows_is_read_from_its_file_and_kept_when_an_inventory_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "context.json").write_text('{"host_paths": ["/srv/data"]}')
    context = find_context(str(tmp_path), ["/etc/hosts.ini"])
    assert context.host_paths == ("/srv/data",)
    remember_inventory(context)
    assert find_context(str(tmp_path)) == replace(context, inventory=("/etc/hosts.ini",))


@pytest.mark.parametrize("text", ['{"host_paths": ["srv"]}', '{"host_paths": "/srv"}', "[]", "{"])
def test_a_context_file_that_makes_no_sense_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "context.json").write_text(text)
    with pytest.raises(UsageError, match=r"context\.json"):
        find_context(str(tmp_path))


def test_a_list_of_hosts_is_one_with_or_without_a_comma_at_its_end(tmp_path: Path) -> None:
    """As Ansible has it; a file with a comma in its name is a file."""
    (tmp_path / "old,hosts.ini").write_text("a\n")
    given = ["a,b", "a,", "old,hosts.ini"]
    assert find_context("context", given).inventory == ("a,b", "a,", str(tmp_path / "old,hosts.ini"))
