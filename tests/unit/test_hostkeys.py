"""Which keys are trusted for which address, and that recording trust loses nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stat
import subprocess
from pathlib import Path

import pytest

from controller.act.hostkeys import HostKey, KnownHosts, Trusted


def key(name: str) -> HostKey:
    return HostKey("ssh-ed25519", base64.b64encode(f"key of {name}".encode()).decode())


A, B = key("a"), key("b")


def known(tmp_path: Path, text: str, also: str | None = None) -> KnownHosts:
    own, other = tmp_path / "own", tmp_path / "also"
    own.write_text(text)
    if also is not None:
        other.write_text(also)
    return KnownHosts(own, [other])


def hashed(name: str) -> str:
    salt = b"0123456789abcdef0123"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("hosts", "host", "port", "matches"),
    [
        ("10.0.0.1", "10.0.0.1", 22, True),
        ("10.0.0.1", "10.0.0.10", 22, False),
        ("10.0.0.1", "10.0.0.1", 2222, False),
        ("[10.0.0.1]:2222", "10.0.0.1", 2222, True),
        ("[10.0.0.1]:2222", "10.0.0.1", 22, False),
        ("web1,10.0.0.1", "10.0.0.1", 22, True),
        ("WEB1", "web1", 22, True),
        ("*.example.org", "a.example.org", 22, True),
        ("*.example.org,!bad.example.org", "bad.example.org", 22, False),
        ("web?", "web1", 22, True),
        ("web[12]", "web1", 22, False),
        (hashed("web1"), "web1", 22, True),
        (hashed("web1"), "web2", 22, False),
        (hashed("[web1]:2222"), "web1", 2222, True),
        ("|1|broken", "web1", 22, False),
    ],
)
def test_host_fields_match_as_in_openssh(tmp_path: Path, hosts: str, host: str, port: int, matches: bool) -> None:
    trusted = known(tmp_path, f"{hosts} {A.type} {A.base64}\n").trusted(host, port)
    assert trusted.keys == ((A,) if matches else ())


def test_an_unknown_address_has_no_keys_and_a_missing_file_is_an_empty_one(tmp_path: Path) -> None:
    assert KnownHosts(tmp_path / "none").trusted("web1", 22) == Trusted()
    assert not KnownHosts(tmp_path / "none").trusted("web1", 22)


def test_broken_lines_and_comments_are_passed_over(tmp_path: Path) -> None:
    text = f"# web1 {A.type} {A.base64}\n\nweb1\nweb1 ssh-ed25519 !!!\nweb1 {B.type} {B.base64} a comment\n"
    assert known(tmp_path, text).trusted("web1", 22).keys == (B,)


def test_our_own_file_wins_over_the_users(tmp_path: Path) -> None:
    """A key that the user's file still holds for an address must not be accepted when our own file names another."""
    both = known(tmp_path, f"web1 {A.type} {A.base64}\n", also=f"web1,web2 {B.type} {B.base64}\n")
    assert both.trusted("web1", 22).keys == (A,)
    assert both.trusted("web2", 22).keys == (B,)


def test_files_that_the_inventory_names_come_between_ours_and_the_users(tmp_path: Path) -> None:
    both = known(tmp_path, f"web1 {A.type} {A.base64}\n", also=f"web1,web2,web3 {A.type} {A.base64}\n")
    named = tmp_path / "named"
    named.write_text(f"web1,web2 {B.type} {B.base64}\n")
    found = [both.trusted(host, 22, [str(named), "~/none"]).keys for host in ("web1", "web2", "web3")]
    assert found == [(A,), (B,), (A,)]


def test_a_key_revoked_anywhere_is_not_trusted(tmp_path: Path) -> None:
    both = known(tmp_path, f"web1 {A.type} {A.base64}\n", also=f"@revoked * {A.type} {A.base64}\n")
    assert both.trusted("web1", 22) == Trusted(revoked=(A,))


def test_certificate_authorities_are_kept_apart(tmp_path: Path) -> None:
    trusted = known(tmp_path, f"@cert-authority *.example.org {A.type} {A.base64}\n").trusted("a.example.org", 22)
    assert trusted == Trusted(authorities=(A,))


def test_trusting_replaces_what_was_known_of_that_address_only(tmp_path: Path) -> None:
    text = f"# mine\nweb1 {A.type} {A.base64}\n{hashed('web1')} {A.type} {A.base64}\nweb2 {A.type} {A.base64}\n"
    hosts = known(tmp_path, text)
    hosts.trust("web1", 22, [B])
    assert hosts.trusted("web1", 22).keys == (B,)
    assert hosts.trusted("web2", 22).keys == (A,)
    assert "# mine\n" in (tmp_path / "own").read_text()


def test_trusting_keeps_revocations(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@revoked web1 {A.type} {A.base64}\n")
    hosts.trust("web1", 22, [A])
    assert hosts.trusted("web1", 22).keys == ()


def test_the_file_is_private_and_another_process_sees_new_trust(tmp_path: Path) -> None:
    writer, reader = KnownHosts(tmp_path / "new" / "own"), KnownHosts(tmp_path / "new" / "own")
    assert reader.trusted("10.0.0.1", 2222) == Trusted()
    writer.trust("10.0.0.1", 2222, [A])
    assert reader.trusted("10.0.0.1", 2222).keys == (A,)
    assert stat.S_IMODE((tmp_path / "new" / "own").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["own"]


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=10)
    shown = subprocess.run(["ssh-keygen", "-lf", path], check=True, timeout=10, capture_output=True, text=True).stdout
    type_, blob = path.with_suffix(".pub").read_text().split()[:2]
    assert HostKey(type_, blob).fingerprint == shown.split()[1]
