"""Ansible Vault: what ansible-vault seals we open; passwords and plain texts stay out of every error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.act.inventory import VaultKeys, load_inventory
from controller.act.inventory.builder import Place
from controller.act.userpath import vault_id_of, vault_id_parts
from controller.model.errors import InventoryError
from controller.model.inventory import VaultText

VAULT = Path(sys.executable).parent / "ansible-vault"
PLAIN = "token: c4nary\nübung: ✓\n"
PLACE = Place("secrets.yml", 3)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PLAIN, sealed by ansible-vault without an id and with two."""
    directory = tmp_path_factory.mktemp("vault")
    texts = {}
    for label in ("default", "dev", "prod"):
        (directory / f"{label}.pw").write_text(f"  the {label} password\n")
        (directory / label).write_text(PLAIN)
        argument = f"{label}@{label}.pw" if label != "default" else "default.pw"
        subprocess.run(
            [VAULT, "encrypt", "--vault-id", argument, label],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=50,
        )
        texts[label] = (directory / label).read_text()
    texts["directory"] = str(directory)
    return texts


def keys(sealed: dict[str, str], *labels: str) -> VaultKeys:
    return VaultKeys.from_specs([f"{label}@{sealed['directory']}/{label}.pw" for label in labels])


@pytest.mark.parametrize("label", ["default", "dev", "prod"])
def test_what_ansible_vault_seals_is_opened(sealed: dict[str, str], label: str) -> None:
    assert sealed[label].startswith(
        "$ANSIBLE_VAULT;1.1" if label == "default" else f"$ANSIBLE_VAULT;1.2;AES256;{label}"
    )
    assert keys(sealed, "default", "dev", "prod").open(sealed[label], PLACE) == PLAIN


def test_a_password_under_another_id_is_tried_too(sealed: dict[str, str]) -> None:
    other = VaultKeys.from_specs([f"other@{sealed['directory']}/dev.pw"])
    assert other.open(sealed["dev"], PLACE) == PLAIN


def test_a_prompt_is_asked_once_and_only_when_needed(sealed: dict[str, str]) -> None:
    asked: list[str] = []

    def prompt(label: str) -> str:
        asked.append(label)
        return "the dev password"

    vault = VaultKeys.from_specs(["dev@prompt"], prompt)
    assert asked == []
    assert vault.open(sealed["dev"], PLACE) == vault.open(sealed["dev"], PLACE) == PLAIN
    assert asked == ["dev"]


def test_nobody_to_ask_is_an_error() -> None:
    with pytest.raises(InventoryError, match="wants a prompt"):
        VaultKeys.from_specs(["dev@prompt"])


@pytest.mark.parametrize(
    ("labels", "words"), [((), "no vault password is given"), (("prod",), "none of the vault passwords")]
)
def test_without_the_password_the_error_names_place_and_id_but_no_secret(
    sealed: dict[str, str], labels: tuple[str, ...], words: str
) -> None:
    vault = keys(sealed, *labels)
    with pytest.raises(InventoryError, match=words) as caught:
        vault.open(sealed["dev"], PLACE)
    assert str(caught.value).startswith("secrets.yml:3: ")
    assert "password\n" not in str(caught.value) + repr(vault)
    assert "the prod password" not in str(caught.value) + repr(vault) + caught.value.hint


@pytest.mark.parametrize("damage", [
    lambda text: text.replace("AES256", "AES"),
    lambda text: text.replace(";1.2;", ";9.9;"),
    lambda text: text[:200],
    lambda text: text.splitlines()[0],
    lambda text: text.replace("\n", "\nzz", 1),
    lambda text: text[:-4] + ("00" if text[-4:-2] != "00" else "11") + text[-2:],
    lambda text: "$ANSIBLE_VAULT",
])  # fmt: skip
def test_a_damaged_text_is_an_error_with_its_place(sealed: dict[str, str], damage: object) -> None:
    assert callable(damage)
    with pytest.raises(InventoryError, match=r"secrets\.yml:3"):
        keys(sealed, "dev").open(damage(sealed["dev"]), PLACE)


def test_a_password_file_that_is_absent_or_empty_is_an_error(sealed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name, words in (("nowhere", "cannot be read"), ("empty", "empty")):
        with pytest.raises(InventoryError, match=words):
            VaultKeys.from_specs([f"dev@{tmp_path / name}"]).open(sealed["dev"], PLACE)


def test_the_first_at_sign_divides_id_and_file_as_in_ansible(sealed: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "ops@example.org" / "pw"
    file.parent.mkdir()
    file.write_bytes(Path(sealed["directory"], "dev.pw").read_bytes())
    for spec in (f"dev@{file}", f"@{file}"):
        assert VaultKeys.from_specs([spec]).open(sealed["dev"], PLACE) == PLAIN
    assert vault_id_parts(vault_id_of("", str(file))) == ("", str(file))


def test_a_program_is_no_password(sealed: dict[str, str], tmp_path: Path) -> None:
    """Ansible runs it."""
    file = tmp_path / "pw.sh"
    file.write_text("#!/bin/sh\necho hello\n")
    file.chmod(0o755)
    with pytest.raises(InventoryError, match="is a program"):
        VaultKeys.from_specs([str(file)]).open(sealed["dev"], PLACE)


def test_a_vaulted_value_stays_closed_until_asked(sealed: dict[str, str], tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for line in sealed["dev"].splitlines())
    (tmp_path / "hosts.yml").write_text(f"all:\n  hosts: {{h: }}\n  vars:\n   secret: !vault |\n{indented}")
    value = load_inventory([str(tmp_path / "hosts.yml")]).hosts["h"].vars["secret"]
    assert isinstance(value, VaultText)
    with pytest.raises(InventoryError, match=r"hosts\.yml:4: .*no vault password"):
        value.reveal()
    opened = load_inventory([str(tmp_path / "hosts.yml")], vault=keys(sealed, "dev")).hosts["h"].vars["secret"]
    assert "c4nary" not in repr(opened)
    assert opened.reveal() == PLAIN


def test_a_vault_file_is_opened_only_if_its_group_exists(sealed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("[web]\nh\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/db.yml").write_text(sealed["dev"])
    load_inventory([str(tmp_path / "hosts.ini")])
    (tmp_path / "group_vars/web.yml").write_text(sealed["dev"])
    with pytest.raises(InventoryError, match="no vault password") as caught:
        load_inventory([str(tmp_path / "hosts.ini")])
    assert caught.value.file == str(tmp_path / "group_vars/web.yml")


def test_a_text_changed_by_one_bit_is_not_opened(sealed: dict[str, str]) -> None:
    """The change makes `token` read `uoken` where the signature is not checked."""
    header, *lines = sealed["dev"].splitlines()
    salt, signature, ciphertext = bytes.fromhex("".join(lines)).split(b"\n")
    changed = ciphertext[:1] + f"{int(ciphertext[1:2], 16) ^ 1:x}".encode() + ciphertext[2:]
    text = header + "\n" + b"\n".join([salt, signature, changed]).hex()
    with pytest.raises(InventoryError, match="none of the vault passwords"):
        keys(sealed, "dev").open(text, PLACE)
