"""One figure: ours, what it is compared with, their ratio, the aim; and the table and file that a run ends in."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Figure:
    """`comparison` of the same run has a ratio; a recorded one (`recorded`) was measured elsewhere on the same kind of machine."""

    name: str
    ours: float
    unit: str
    comparison: float | None = None
    compared_with: str = ""
    aim: float | None = None  # ours shall be at most this
    aim_ratio: float | None = None  # ours ÷ comparison shall be at most this
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.comparison if self.comparison else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        met = [self.ours <= self.aim] if self.aim is not None else []
        if self.aim_ratio is not None and self.ratio is not None:
            met.append(self.ratio <= self.aim_ratio)
        return all(met) if met else None


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile: of 100 values the 99th smallest for 99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-percent * len(ordered) // 100) - 1))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(figures: Sequence[Figure]) -> str:
    """As markdown, aligned."""
    header = ["figure", "ours", "compared with", "", "ratio", "aim", "met"]
    rows = [header, ["---"] * len(header)]
    for one in figures:
        comparison = f"{one.comparison:g} {one.unit}" if one.comparison is not None else ""
        ratio = f"{one.ratio:.2f}" if one.ratio is not None else ""
        aims = [f"≤ {one.aim:g} {one.unit}"] if one.aim is not None else []
        aims += [f"≤ {one.aim_ratio:g} ×"] if one.aim_ratio is not None else []
        met = {True: "yes", False: "NO", None: ""}[one.met]
        rows.append(
            [one.name, f"{one.ours:.3g} {one.unit}", one.compared_with, comparison, ratio, ", ".join(aims), met]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "| "
        + " | ".join(
            (cell if cell != "---" else "-" * width).ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        + " |"
        for row in rows
    )


def keep(figures: Sequence[Figure], load_before: float) -> Path:
    """Writes the run as JSON beside the others, with the machine's description."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%d-%H%M')}.json"
    document = {
        "machine": machine(load_before),
        "figures": [{**asdict(one), "ratio": one.ratio, "met": one.met} for one in figures],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return path


def machine(load_before: float) -> dict[str, str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": f"{os.cpu_count()} × {model}",
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": f"{load_before:.2f}",
    }
