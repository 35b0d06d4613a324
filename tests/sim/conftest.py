"""Adds up what the simulated runs lived through and prints it after the tests; works the same under pytest-xdist."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from controller.cli.start import GC_THRESHOLD

PROPERTY = "sshoal-sim"

AUTOGROUP = Path("/proc/self/autogroup")

gc.set_threshold(GC_THRESHOLD)  # as in the program itself


def pytest_configure(config: pytest.Config) -> None:
    """Where Linux shares its time among sessions, a niced process is only last in its own: these are last of all."""
    if hasattr(config, "workerinput") and os.nice(0) == 19 and AUTOGROUP.exists():
        os.setsid()
        with contextlib.suppress(OSError):  # for others than root: once in a tenth of a second
            AUTOGROUP.write_text("19")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    faults: Counter[str] = Counter()
    runs, passes, simulated_s = 0, 0, 0.0
    for outcome in _outcomes(terminalreporter):
        runs += 1
        passes += outcome["passes"]
        simulated_s += outcome["simulated_s"]
        faults.update(outcome["faults"])
    if runs:
        terminalreporter.section("simulation")
        terminalreporter.write_line(
            f"{runs} seeds, {simulated_s / 3600:.0f} simulated hours, {passes} passes, {faults.total()} faults:"
        )
        terminalreporter.write_line(", ".join(f"{count} × {fault}" for fault, count in sorted(faults.items())))


def _outcomes(reporter: TerminalReporter) -> list[dict[str, object]]:
    reports = [report for kind in ("passed", "failed") for report in reporter.stats.get(kind, [])]
    return [
        json.loads(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
