"""The virtual machine is the current Debian that the lab's hosts are not, and runs containers."""

from __future__ import annotations

from lab.vm import Vm


def test_it_runs_on_unified_control_groups_with_systemds_manager(vm: Vm) -> None:
    facts = vm.run("podman info --format '{{.Host.CgroupsVersion}} {{.Host.CgroupManager}} {{.Store.GraphDriverName}}'")

    assert facts == "v2 systemd overlay\n"
    assert vm.run("podman --version").startswith("podman version 5.")
    assert vm.run("systemctl is-system-running --wait; systemctl --failed --no-legend --plain") == "running\n"


def test_the_ordinary_user_becomes_root_by_sudo(vm: Vm) -> None:
    assert vm.run("id -un; sudo --non-interactive id -un", user="ubuntu") == "ubuntu\nroot\n"


def test_a_container_serves_under_its_memory_limit(vm: Vm, test_image: str) -> None:
    options = "--detach --name web --memory 64m --publish 8080:8080"
    vm.run(f"podman run {options} {test_image}", timeout_s=120)
    try:
        page = "curl --silent --retry 20 --retry-delay 1 --retry-all-errors http://127.0.0.1:8080/"
        assert "version=v1" in vm.run(page, timeout_s=120)
        assert vm.run("podman exec web cat /sys/fs/cgroup/memory.max") == f"{64 * 2**20}\n"
    finally:
        vm.run("podman rm --force --time 0 web", timeout_s=120)


def test_a_power_cut_leaves_the_disk_and_a_new_boot_finds_it(vm: Vm) -> None:
    first_boot, machine_id = vm.boot_id(), vm.run("cat /etc/machine-id")
    vm.run("echo kept >/root/file; sync")
    vm.kill()
    assert not vm.powered()
    vm.start()
    vm.wait_ready(timeout_s=600)

    assert vm.boot_id() != first_boot
    assert vm.run("cat /root/file /etc/machine-id") == f"kept\n{machine_id}"
