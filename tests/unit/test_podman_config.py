"""nodeagent.podman_config: our Podman service runs with the host's settings and one of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent import podman_config
from nodeagent.podman_config import dump, merged


def podman(directory: Path, version: str) -> str:
    path = directory / "podman"
    path.write_text(f"#!/bin/sh\necho podman version {version}\n")
    path.chmod(0o755)
    return str(path)


def host(directory: Path, files: dict[str, str]) -> Path:
    root = directory / "host"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


FILES = {
    "usr/share/containers/containers.conf": '[engine]\nruntime = "runc"\nexit_command_delay = 9\n[containers]\ndns_servers = ["a", "b"]\n',
    "etc/containers/containers.conf": '[engine]\ncgroup_manager = "systemd"\n[engine.runtimes]\ncrun = ["/usr/bin/crun"]\n',
    "etc/containers/containers.conf.d/10-first.conf": '[engine]\ncgroup_manager = "cgroupfs"\n[containers]\ndns_servers = ["c"]\n',
    "etc/containers/containers.conf.d/20-second.conf": '[engine.runtimes]\nkata = ["/opt/kata"]\n',
    "etc/containers/containers.conf.d/30-other.txt": "no settings",
}


def test_a_podman_before_4_5_gets_all_files_of_the_host_merged_in_its_order(tmp_path: Path) -> None:
    podman_config.write(tmp_path, podman(tmp_path, "4.3.1"), root=host(tmp_path, FILES))
    assert (tmp_path / "podman.env").read_text() == f"CONTAINERS_CONF={tmp_path}/containers.conf\n"
    assert tomli.loads((tmp_path / "containers.conf").read_text()) == {
        "engine": {
            "runtime": "runc",
            "exit_command_delay": podman_config.EXEC_KEPT_S,
            "cgroup_manager": "cgroupfs",
            "runtimes": {"crun": ["/usr/bin/crun"], "kata": ["/opt/kata"]},
        },
        "containers": {"dns_servers": ["c"]},
    }


def test_an_ordinary_users_own_settings_win_over_the_hosts(tmp_path: Path) -> None:
    own = {
        "home/.config/containers/containers.conf": '[engine]\nruntime = "crun"\n[network]\nnetwork_backend = "netavark"\n'
    }
    root = host(tmp_path, {**FILES, **own})
    podman_config.write(tmp_path, podman(tmp_path, "4.3.1"), root=root, home=root / "home")
    settings = tomli.loads((tmp_path / "containers.conf").read_text())
    assert (settings["engine"]["runtime"], settings["engine"]["cgroup_manager"]) == ("crun", "cgroupfs")
    assert settings["network"] == {"network_backend": "netavark"}


@pytest.mark.parametrize("version", ["4.5.0", "4.10.2", "5.4.2-dev"])
def test_a_newer_podman_gets_the_one_value_on_top_of_what_it_reads_itself(tmp_path: Path, version: str) -> None:
    podman_config.write(tmp_path, podman(tmp_path, version), root=host(tmp_path, FILES))
    assert (tmp_path / "podman.env").read_text() == f"CONTAINERS_CONF_OVERRIDE={tmp_path}/containers.conf\n"
    settings = tomli.loads((tmp_path / "containers.conf").read_text())
    assert settings == {"engine": {"exit_command_delay": podman_config.EXEC_KEPT_S}}


def test_a_host_without_any_settings_gets_ours_alone(tmp_path: Path) -> None:
    podman_config.write(tmp_path, podman(tmp_path, "4.3.1"), root=tmp_path / "nothing")
    settings = tomli.loads((tmp_path / "containers.conf").read_text())
    assert settings == {"engine": {"exit_command_delay": podman_config.EXEC_KEPT_S}}


def test_settings_that_are_no_toml_leave_podman_to_the_host_alone(tmp_path: Path) -> None:
    (tmp_path / "podman.env").write_text("CONTAINERS_CONF=/from/before\n")
    broken = host(tmp_path, {"etc/containers/containers.conf": "[engine\n"})
    with pytest.raises(ValueError):
        podman_config.write(tmp_path, podman(tmp_path, "4.3.1"), root=broken)
    assert not (tmp_path / "podman.env").exists()


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.-_ \"'\n", max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text("ab.-_ \"'\n", max_size=4), VALUES, max_size=4))
def test_what_is_written_reads_back_the_same(document: dict[str, object]) -> None:
    assert tomli.loads(dump(document)) == document


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.dictionaries(st.sampled_from("abc"), VALUES))
def test_merging_never_loses_a_key_and_the_later_value_wins(
    first: dict[str, object], second: dict[str, object]
) -> None:
    result = merged([first, second])
    assert result.keys() == first.keys() | second.keys()
    for key, value in second.items():
        if not isinstance(value, dict) or not isinstance(first.get(key), dict):
            assert result[key] == value
