"""Regular passes by cron or a systemd timer. One entry per context, found again by a marker; other people's lines stay untouched."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from controller.act.settings import Context
from controller.act.userpath import user_path, vault_id_of, vault_id_parts
from controller.model.errors import SshoalError, UsageError
from controller.model.text import printable

_EMPTY = ("no crontab", "no such file")  # as cron and cronie say it, and BusyBox (Alpine)
_DEADLINE_S = 20
_UNITS = Path("/etc/systemd/system")


def install(
    context: Context,
    every_s: float,
    *,
    systemd: bool,
    vault: Sequence[str] = (),
    executables: bool = False,
    config: Path | None = None,
) -> str:
    """Installs or renews the entry of this context. Out: one line that says what was done.

    Args:
        vault: vault ids, and `executables`: whether programs may be inventories, for the passes.
        config: the file of settings that is in force now.

    Raises: UsageError for a period that cron cannot have or a vault password that only a person knows; SshoalError when cron or systemd
    refuses.
    """
    minutes = round(every_s / 60)
    if minutes < 1 or abs(every_s - minutes * 60) > 0.5 or minutes > 59:
        raise UsageError("--every must be whole minutes, 1m to 59m", hint="for more frequent passes run `sshoal watch`")
    budget_s = max(30, minutes * 60 - 10)  # a run ends before the next begins
    command = [
        sys.executable,
        "-m",
        "controller.cli",
        *(["--config", str(config)] if config is not None else []),
        "reconcile",
        "--settle",
        "--scheduled",
        "--budget",
        f"{budget_s}s",
    ]
    command += ["--period", f"{minutes * 60}s", "--context", str(context.directory)]
    for source in context.inventory:
        command += ["--inventory", source]
    # Cron has neither the environment nor the working directory of whoever installs it: what a pass needs of them goes along.
    for vault_id in vault:
        command += ["--vault-id", _lasting(vault_id)]
    if executables:
        command += ["--allow-executable-inventory"]
    return _install_timer(context, minutes, command) if systemd else _install_cron(context, minutes, command)


def remove(context: Context) -> str:
    """Takes away the entry of this context, of either kind. No error when there is none."""
    done = []
    if shutil.which("crontab"):
        lines = _crontab()
        kept = [line for line in lines if not line.endswith(_marker(context))]
        if kept != lines:
            _write_crontab(kept)
            done.append("crontab line removed")
    timer = _UNITS / f"{_unit(context)}.timer"
    if timer.exists():
        _run(["systemctl", "disable", "--now", timer.name])
        timer.unlink()
        timer.with_suffix(".service").unlink(missing_ok=True)
        _run(["systemctl", "daemon-reload"])
        done.append(f"{timer.name} removed")
    return ", ".join(done) or "there was no schedule"


def _lasting(vault_id: str) -> str:
    """A vault id whose file is found from any directory. Raises UsageError for one that asks a person."""
    label, source = vault_id_parts(vault_id)
    if source == "prompt":
        raise UsageError(
            f"vault id {vault_id}: nobody is there to be asked for the password",
            hint="keep it in a file that only you may read",
        )
    return vault_id_of(label, str(user_path(source).absolute()))


def _install_cron(context: Context, minutes: int, command: list[str]) -> str:
    if not shutil.which("crontab"):
        raise SshoalError("there is no crontab on this machine", hint="apt-get install cron, or use --systemd")
    # A % is a line break in a crontab unless it is escaped.
    text = shlex.join(command).replace("%", "\\%")
    line = f"{'*' if minutes == 1 else f'*/{minutes}'} * * * * {text} {_marker(context)}"
    kept = [old for old in _crontab() if not old.endswith(_marker(context))]
    _write_crontab([*kept, line])
    return f"cron runs a pass every {minutes} min: {line}"


def _install_timer(context: Context, minutes: int, command: list[str]) -> str:
    name = _unit(context)
    # systemd expands % and $ in ExecStart, and a backslash also within single quotes; all are escaped by doubling.
    exec_start = shlex.join(command).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    service = (
        f"[Unit]\nDescription=sshoal passes\n\n[Service]\nType=oneshot\nExecStart={exec_start}\nSuccessExitStatus=3 4\n"
    )
    when = f"OnBootSec=1min\nOnUnitActiveSec={minutes}min\nAccuracySec=1s"
    timer = f"[Unit]\nDescription=sshoal passes\n\n[Timer]\n{when}\n\n[Install]\nWantedBy=timers.target\n"
    try:
        (_UNITS / f"{name}.service").write_text(service)
        (_UNITS / f"{name}.timer").write_text(timer)
    except OSError as error:
        raise SshoalError(f"the units cannot be written: {error}", hint="run as root, or use --cron") from error
    _run(["systemctl", "daemon-reload"])
    _run(["systemctl", "enable", "--now", f"{name}.timer"])
    return f"systemd runs a pass every {minutes} min: {name}.timer"


def _marker(context: Context) -> str:
    return f"# sshoal {_unit(context)}"


def _unit(context: Context) -> str:
    return f"sshoal-{hashlib.sha256(str(context.directory).encode()).hexdigest()[:8]}"


def _crontab() -> list[str]:
    """The user's lines. Raises SshoalError when they cannot be read: taken for none, they would be written over."""
    in_english = {**os.environ, "LC_ALL": "C"}
    listed = subprocess.run(["crontab", "-l"], capture_output=True, timeout=_DEADLINE_S, check=False, env=in_english)
    if listed.returncode == 0:
        text = listed.stdout.decode(errors="surrogateescape")
        # Not splitlines(): to cron a form feed or U+2028 ends no line.
        return text.removesuffix("\n").split("\n") if text else []
    said = printable(listed.stderr)
    if any(words in said.lower() for words in _EMPTY):
        return []
    raise SshoalError(
        f"crontab -l failed: {said or f'exit code {listed.returncode}'}; nothing was changed",
        hint="see that `crontab -l` works here, or says that there is no crontab",
    )


def _write_crontab(lines: list[str]) -> None:
    _run(["crontab", "-"], "".join(f"{line}\n" for line in lines))


def _run(command: list[str], text: str | None = None) -> None:
    given = None if text is None else text.encode(errors="surrogateescape")  # somebody's lines go back to the byte
    done = subprocess.run(command, input=given, capture_output=True, timeout=_DEADLINE_S, check=False)
    if done.returncode:
        raise SshoalError(f"{shlex.join(command)} failed: {done.stderr.decode(errors='replace').strip()[:300]}")
