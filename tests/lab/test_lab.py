"""The lab itself: hosts like real ones, faults that are real, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.model.errors import NotFound, UsageError
from lab import image, network, system
from lab.lab import Lab, state_root
from tests.lab.conftest import page, page_status, wait_until

# -- hosts are like real ones ------------------------------------------------------------------------------------


def test_every_host_runs_systemd_and_nothing_failed(lab3: Lab) -> None:
    """Of a boot: what tests before this one did to the hosts (killed sessions, say) is over with it."""
    for host in lab3.hosts:
        lab3.reboot(host.name)
        assert host.run("cat /proc/1/comm; systemctl is-system-running; systemctl --failed --no-legend") == (
            "systemd\nrunning\n"
        )


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/machine-id",
        "uname -n",
        "cat /proc/sys/kernel/random/boot_id",
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        "readlink /proc/self/ns/net",
        "cat /sys/class/net/eth0/address",
    ],
)
def test_hosts_differ_in(lab3: Lab, command: str) -> None:
    answers = {host.run(command) for host in lab3.hosts}

    assert len(answers) == 3


def test_hosts_know_each_other_by_name_and_reach_each_other(lab3: Lab) -> None:
    for host in lab3.hosts:
        for other in lab3.hosts:
            banner = host.run(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{other.name}/22; head -c 4 <&3'")
            assert banner == "SSH-"


def test_the_ordinary_user_becomes_root_by_sudo_without_a_password(lab3: Lab) -> None:
    assert lab3.hosts[0].run("id -un; sudo --non-interactive id -un", user="ubuntu") == "ubuntu\nroot\n"


def test_private_keys_are_readable_by_their_owner_only(lab3: Lab) -> None:
    modes = {oct(key.stat().st_mode & 0o777) for key in (lab3.root_key, lab3.user_key)}

    assert modes == {"0o600"}


def test_known_hosts_holds_the_hosts_true_keys(lab3: Lab) -> None:
    for host in lab3.hosts:
        true_key = " ".join(host.run("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
        assert f"{host.address} {true_key}" in lab3.known_hosts.read_text().splitlines()


@pytest.mark.parametrize("inventory", ["inventory", "inventory_sudo"])
def test_ansible_reads_the_inventory_and_runs_as_root_on_all_hosts(lab3: Lab, inventory: str) -> None:
    ansible = Path(sys.executable).with_name("ansible")
    argv = [str(ansible), "-i", str(getattr(lab3, inventory)), "lab", "-m", "command", "-a", "id -un", "--one-line"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment, check=True)

    assert sorted(line.split(" | ")[0] for line in done.stdout.splitlines() if "root" in line) == [
        "node1",
        "node2",
        "node3",
    ]


# -- Podman works on them ----------------------------------------------------------------------------------------


@pytest.fixture
def emptied(lab3: Lab) -> Iterator[Lab]:
    yield lab3
    for host in lab3.hosts:
        host.run("podman rm --all --force --time 0; podman pod rm --all --force")


def test_a_container_serves_on_a_published_port_under_its_memory_limit(
    emptied: Lab, test_images: dict[str, str]
) -> None:
    host = emptied.hosts[0]
    host.run(f"podman run --detach --name web --memory 64m --publish 8080:8080 {test_images['v1']}")
    wait_until(lambda: "version=v1" in page(host, 8080), "the page")

    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert host.run(f"podman exec web sh -c '{limit}'", check=False).strip() == str(64 * 2**20)
    assert host.run("podman stats --no-stream --format '{{.Name}}'") == "web\n"


def test_a_pod_shares_its_network_between_containers(emptied: Lab, test_images: dict[str, str]) -> None:
    host = emptied.hosts[1]
    host.run("podman pod create --name pod --publish 8081:8080")
    host.run(f"podman run --detach --pod pod --name web {test_images['v2']}")
    host.run(f"podman run --detach --pod pod --name idle {test_images['v2']} sleep 1000")
    wait_until(lambda: "version=v2" in page(host, 8081), "the page")

    assert "version=v2" in host.run(
        "podman exec idle sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc 127.0.0.1 8080'"
    )


def test_podmans_socket_answers(lab3: Lab) -> None:
    ping = "curl --silent --unix-socket /run/podman/podman.sock http://podman/v4.0.0/libpod/_ping"

    assert [host.run(ping) for host in lab3.hosts] == ["OK"] * 3


def test_the_test_image_misbehaves_on_demand(emptied: Lab, test_images: dict[str, str]) -> None:
    host = emptied.hosts[2]
    host.run(f"podman run --detach --name web --publish 8080:8080 {test_images['v1']}")
    wait_until(lambda: page_status(host, 8080, "/ready") == 200, "the container to be ready")

    page(host, 8080, "/cgi-bin/set?ready=no")
    assert page_status(host, 8080, "/ready") == 404
    host.run("podman exec web /www/cgi-bin/set ready=yes")
    assert page_status(host, 8080, "/ready") == 200
    page(host, 8080, "/cgi-bin/set?exit=7")
    assert host.run("podman wait web").strip() == "7"


def test_the_bad_variant_serves_but_never_gets_ready(emptied: Lab, test_images: dict[str, str]) -> None:
    host = emptied.hosts[0]
    host.run(f"podman run --detach --publish 8080:8080 {test_images['bad']}")
    wait_until(lambda: "version=bad" in page(host, 8080), "the page")

    assert page_status(host, 8080, "/ready") == 404


@pytest.mark.parametrize(
    ("environment", "exit_code"),
    [("--env EXIT_CODE=5", 5), ("--env EXIT_CODE=6 --env EXIT_AFTER=0.2", 6)],
    ids=["at once", "after a while"],
)
def test_a_container_exits_with_the_code_it_was_given(
    emptied: Lab, test_images: dict[str, str], environment: str, exit_code: int
) -> None:
    command = f"podman run {environment} {test_images['v1']} >/dev/null 2>&1; echo $?"

    assert int(emptied.hosts[0].run(command)) == exit_code


@pytest.mark.parametrize(("ignore", "exit_code"), [("no", "0"), ("yes", "137")])
def test_a_container_obeys_or_ignores_term(
    emptied: Lab, test_images: dict[str, str], ignore: str, exit_code: str
) -> None:
    host = emptied.hosts[0]
    host.run(f"podman run --detach --name web --env IGNORE_TERM={ignore} --publish 8080:8080 {test_images['v1']}")
    wait_until(lambda: "version=v1" in page(host, 8080), "the page")
    host.run("podman stop --time 1 web")

    assert host.run("podman inspect --format '{{.State.ExitCode}}' web").strip() == exit_code


# -- faults ------------------------------------------------------------------------------------------------------


def boot_id(lab: Lab, name: str) -> str:
    return lab.host(name).run("cat /proc/sys/kernel/random/boot_id")


def test_a_power_cut_leaves_the_disk_and_a_new_boot_finds_it(whole_lab3: Lab, test_images: dict[str, str]) -> None:
    host, first_boot = whole_lab3.hosts[0], boot_id(whole_lab3, "node1")
    host.run("echo kept >/root/file; sync; systemd-run --quiet --unit keeps-running sleep 1000")
    whole_lab3.kill("node1")

    assert (host.state(), host.init()) == ("off", None)
    whole_lab3.start("node1")
    assert boot_id(whole_lab3, "node1") != first_boot
    assert host.run("cat /root/file; systemctl is-active keeps-running; true") == "kept\ninactive\n"
    assert test_images["v1"] in host.run("podman images --format '{{.Repository}}:{{.Tag}}'").splitlines()


def test_a_reboot_is_orderly(whole_lab3: Lab) -> None:
    host, first_boot = whole_lab3.hosts[0], boot_id(whole_lab3, "node1")
    host.run("systemd-run --quiet --unit witness --property 'ExecStop=/bin/touch /root/stopped' sleep 1000")
    whole_lab3.reboot("node1")

    assert boot_id(whole_lab3, "node1") != first_boot
    assert host.run("ls /root/stopped").strip() == "/root/stopped"


def test_a_reboot_from_inside_works_as_on_a_real_host_also_with_a_container_that_ignores_being_asked(
    whole_lab3: Lab, test_images: dict[str, str]
) -> None:
    first_boot = boot_id(whole_lab3, "node2")
    whole_lab3.hosts[1].run(
        f"podman run --rm -d {test_images['v1']} sleep 1000"
    )  # process 1 without a handler for SIGTERM
    whole_lab3.hosts[1].run("systemctl reboot", check=False)

    def rebooted() -> bool:
        return whole_lab3.hosts[1].run("cat /proc/sys/kernel/random/boot_id", check=False) not in ("", first_boot)

    wait_until(rebooted, "node2 to come back", 60)


def test_a_partition_cuts_both_directions_and_heals(whole_lab3: Lab) -> None:
    cut, other = whole_lab3.hosts[0], whole_lab3.hosts[1]
    reach = "timeout 1 bash -c 'exec 3<>/dev/tcp/{}/22' 2>/dev/null && echo reached || echo cut"
    script = f"until [ -e /root/go ]; do sleep 0.1; done\n{reach.format(other.address)} >/root/outward"
    cut.run(f"cat >/root/try <<'END'\n{script}\nEND\nsystemd-run --quiet bash /root/try")
    whole_lab3.partition("node1")

    assert (cut.answers(), cut.state()) == (False, "partitioned")
    assert other.run(reach.format(cut.address)).strip() == "cut"
    (cut.root() / "root/go").touch()
    outward = cut.root() / "root/outward"
    wait_until(lambda: outward.exists() and outward.read_text() != "", "node1 to try")
    assert outward.read_text() == "cut\n"
    whole_lab3.heal("node1")
    wait_until(cut.answers, "node1 to answer again")


def test_a_partitioned_host_stays_so_over_a_reboot(whole_lab3: Lab) -> None:
    whole_lab3.partition("node3")
    whole_lab3.reboot("node3", wait=False)
    wait_until(lambda: whole_lab3.hosts[2].init() is not None, "node3 to boot")

    assert whole_lab3.hosts[2].answers() is False


def test_a_host_that_is_off_can_be_partitioned_and_healed(whole_lab3: Lab) -> None:
    whole_lab3.kill("node1")
    whole_lab3.partition("node1")
    whole_lab3.start("node1", wait=False)
    wait_until(lambda: whole_lab3.hosts[0].init() is not None, "node1 to boot")
    assert whole_lab3.hosts[0].answers() is False
    whole_lab3.heal("node1")

    wait_until(whole_lab3.hosts[0].answers, "node1 to answer")


def test_up_brings_a_lab_back_after_this_machine_was_rebooted(whole_lab3: Lab) -> None:
    """A reboot takes the processes and the links, and leaves the files."""
    before = [host.run("cat /etc/machine-id") for host in whole_lab3.hosts]
    for host in whole_lab3.hosts:
        host.kill()
    network.remove_switch(whole_lab3.switch)
    Lab.up(whole_lab3.name, hosts=3)

    assert [host.run("cat /etc/machine-id") for host in whole_lab3.hosts] == before


def test_a_frozen_host_answers_nothing_and_goes_on_when_thawed(whole_lab3: Lab) -> None:
    first_boot = boot_id(whole_lab3, "node2")
    whole_lab3.freeze("node2")
    assert whole_lab3.hosts[1].answers() is False
    whole_lab3.thaw("node2")

    assert boot_id(whole_lab3, "node2") == first_boot


def test_a_frozen_host_can_be_killed(whole_lab3: Lab) -> None:
    whole_lab3.freeze("node2")
    whole_lab3.kill("node2")

    assert whole_lab3.hosts[1].state() == "off"


# -- nothing stays behind ----------------------------------------------------------------------------------------


def traces(name: str) -> list[str]:
    """Whatever of the lab `name` can be found on this machine."""
    directory = state_root() / name
    lab = Lab(name, directory, None, "", 0, False)  # type: ignore[arg-type]
    found = [f"file {path}" for path in state_root().glob("*") if name in path.name]
    found += [f"file {path}" for path in state_root().glob(".*") if name in path.name]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line]
    found += [f"link {path.name}" for path in Path("/sys/class/net").iterdir() if path.name.startswith(lab.switch)]
    found += [f"namespace {path}" for path in Path("/run/netns").glob(f"*{lab.switch}*")]
    for hierarchy in system.cgroup_hierarchies():
        found += [f"control group {path}" for path in hierarchy.glob(f"**/{lab.switch}-*")]
    found += [
        f"process {process.pid} {process.argv}"
        for process in system.processes().values()
        if any(str(directory) in word or f"={lab.switch}-" in word for word in process.argv)
    ]
    return found


def test_down_leaves_nothing_behind() -> None:
    name = f"test-{os.getpid()}-traces"
    lab = Lab.up(name, hosts=2)
    lab.partition("node1")
    lab.kill("node2")
    assert {trace.split()[0] for trace in traces(name)} >= {"file", "link", "namespace", "process"}
    lab.down()

    assert traces(name) == []
    with pytest.raises(NotFound):
        Lab.load(name)


UP = "import sys; from lab.lab import Lab; Lab.up(sys.argv[1], hosts=2, progress=lambda text: print(text, flush=True))"


@pytest.mark.parametrize("then", ["down", "up"])
@pytest.mark.parametrize("point", ["lab.json", "id_root", "boot.sh", "known_hosts", "systemd", "ready"])
def test_a_killed_up_is_cleaned_up(point: str, then: str) -> None:
    """`up` is killed as soon as `point` is there to be seen."""
    name = f"test-{os.getpid()}-{point.replace('.', '').replace('_', '')}"
    directory = state_root() / name
    Lab.up(name, hosts=1).down()  # the base is cached
    output = state_root() / f".{name}.out"

    def seen() -> bool:
        if point == "systemd":
            return name in Lab.names() and any(host.init() for host in Lab.load(name).hosts)
        if point == "ready":
            return "ready at" in output.read_text()
        return any(directory.rglob(point))

    try:
        with output.open("w") as sink:
            up = subprocess.Popen([sys.executable, "-c", UP, name], stdout=sink, stderr=subprocess.STDOUT)
        wait_until(lambda: seen() or up.poll() is not None, point)
        up.send_signal(signal.SIGKILL)
        up.wait(10)
        assert name in Lab.names(), output.read_text()
        if then == "up":
            assert Lab.up(name, hosts=2).hosts[1].answers()
    finally:
        output.unlink()
        Lab.load(name).down()

    assert traces(name) == []


def test_two_labs_live_side_by_side(lab3: Lab) -> None:
    name = f"test-{os.getpid()}-second"
    second = Lab.up(name, hosts=1)
    try:
        assert not second.subnet.overlaps(lab3.subnet)
        assert second.switch != lab3.switch
        assert second.hosts[0].run("uname -n") == "node1\n"
    finally:
        second.down()

    assert all(host.answers() for host in lab3.hosts)


def test_up_again_keeps_the_hosts_that_run(lab3: Lab) -> None:
    before = boot_id(lab3, "node1")
    Lab.up(lab3.name, hosts=3)

    assert boot_id(lab3, "node1") == before


def test_up_in_another_shape_is_refused_and_changes_nothing(lab3: Lab) -> None:
    with pytest.raises(UsageError, match="exists with 3 hosts"):
        Lab.up(lab3.name, hosts=2)

    assert all(host.answers() for host in lab3.hosts)


def test_the_base_of_this_machine_boots_only_named_units() -> None:
    name = f"test-{os.getpid()}-own-root"
    lab = Lab.up(name, hosts=1, base="/")
    try:
        host = lab.hosts[0]
        lab.load_image(image.build())
        host.run(f"podman run --detach --publish 8080:8080 {image.REPOSITORY}:v1")
        wait_until(lambda: "version=v1" in page(host, 8080), "the page")
        services = host.run("systemctl list-units --no-legend --plain --type=service --state=running | cut -d' ' -f1")
        ours = {"dbus.service", "podman.service", "ssh.service", "systemd-journald.service", "systemd-logind.service"}
        assert {unit for unit in services.split() if not unit.startswith("user@")} <= ours
        assert host.run("ls -A /home /root/.ssh").split() == ["/home:", "ubuntu", "/root/.ssh:", "authorized_keys"]
    finally:
        lab.down()
