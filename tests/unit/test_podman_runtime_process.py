"""nodeagent.process on processes of this machine: identity, end, signals."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from nodeagent import process
from nodeagent.runtime import Process, RuntimeFault


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait(10)


def found(pid: int) -> Process:
    seen = process.find(pid)
    assert seen is not None
    return seen


def test_a_process_is_known_by_pid_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    seen = found(sleeper.pid)
    assert seen.pid == sleeper.pid and seen.start_ticks > 0
    assert process.is_alive(seen)
    assert not process.is_alive(Process(seen.pid, seen.start_ticks + 1))


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_there_is_no_process_of_an_impossible_pid(pid: int) -> None:
    assert process.find(pid) is None


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    seen = found(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{sleeper.pid}").exists()
    assert not process.is_alive(seen)


def test_a_name_with_brackets_and_blanks_does_not_confuse(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as child:
        assert process.is_alive(found(child.pid))
        child.kill()


def test_the_end_of_a_process_is_awaited(sleeper: subprocess.Popen[bytes]) -> None:
    async def scenario() -> None:
        seen = found(sleeper.pid)
        waiting = asyncio.ensure_future(process.wait_exit(seen))
        await asyncio.sleep(0)
        assert not waiting.done()
        sleeper.kill()
        await asyncio.wait_for(waiting, 5.0)
        await process.wait_exit(seen)

    asyncio.run(scenario())


@pytest.mark.parametrize("lacks", ["kernel", "python", "python, to send"])
def test_without_pidfds_the_end_is_found_by_asking(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    if lacks == "kernel":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    elif lacks == "python":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.delattr(signal, "pidfd_send_signal")

    async def scenario() -> None:
        seen = found(sleeper.pid)
        waiting = asyncio.ensure_future(process.wait_exit(seen))
        await asyncio.sleep(0)
        assert not waiting.done()
        process.send_signal(seen, signal.SIGKILL)
        sleeper.wait(10)
        await asyncio.wait_for(waiting, 5.0)

    asyncio.run(scenario())


def test_without_file_descriptors_what_ran_is_believed_to_run_and_gets_no_signal(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for dead, a container would get a second one beside it."""
    seen = found(sleeper.pid)

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pidfd_open", refuse)
            patch.setattr("builtins.open", refuse)
            waiting = asyncio.ensure_future(process.wait_exit(seen))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            process.send_signal(Process(seen.pid, seen.start_ticks - 1), signal.SIGKILL)
        sleeper.kill()
        sleeper.wait(10)
        await asyncio.wait_for(waiting, 5.0)

    asyncio.run(scenario())
    assert not process.is_alive(seen)


def test_waiting_for_a_later_process_with_the_same_pid_ends_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    seen = found(sleeper.pid)
    asyncio.run(asyncio.wait_for(process.wait_exit(Process(seen.pid, seen.start_ticks - 1)), 5.0))


def test_a_signal_never_hits_a_later_process_with_the_same_pid(sleeper: subprocess.Popen[bytes]) -> None:
    seen = found(sleeper.pid)
    process.send_signal(Process(seen.pid, seen.start_ticks - 1), signal.SIGKILL)
    assert process.is_alive(seen)
    process.send_signal(seen, signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL
    process.send_signal(seen, signal.SIGKILL)


def test_a_process_is_told_by_its_control_group(sleeper: subprocess.Popen[bytes]) -> None:
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    path = max((line.split(":", 2)[2] for line in groups), key=len)
    seen = found(sleeper.pid)
    assert process.is_in_group(seen, path)
    assert not process.is_in_group(seen, "c" * 64)
    assert not process.is_in_group(Process(seen.pid, seen.start_ticks + 1), path)
    assert not process.is_in_group(Process(2**22 + 1, 1), path)


def test_a_tree_is_killed_with_its_grandchildren() -> None:
    with subprocess.Popen(["sh", "-c", "sh -c 'sleep 1000 & echo $!; wait' & wait"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        grandchild = found(int(child.stdout.readline()))
        process.kill_tree(child.pid)
        asyncio.run(asyncio.wait_for(process.wait_exit(grandchild), 5.0))


STARTS_FROM_A_THREAD = """
import subprocess, threading
def work():
    child = subprocess.Popen(["sleep", "1000"])
    print(child.pid, flush=True)
    child.wait()
threading.Thread(target=work).start()
"""


def test_a_tree_is_killed_with_what_a_thread_has_started() -> None:
    """As Podman starts its network helper."""
    with subprocess.Popen([sys.executable, "-c", STARTS_FROM_A_THREAD], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = found(int(parent.stdout.readline()))
        process.kill_tree(parent.pid)
        asyncio.run(asyncio.wait_for(process.wait_exit(child), 5.0))


def test_a_port_where_nothing_listens_is_a_fault(sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(RuntimeFault, match="port 1: Connection refused") as fault:
        asyncio.run(process.connect_inside(found(sleeper.pid), 1, 20.0))
    assert fault.value.reason == "failed"


def test_a_process_that_is_gone_has_no_network() -> None:
    with pytest.raises(RuntimeFault) as fault:
        asyncio.run(process.connect_inside(Process(2**22 + 1, 1), 80, 2.0))
    assert fault.value.reason == "not-found"
