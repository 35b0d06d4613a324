"""When a container that ended, or an operation that failed, may be tried again. Pure. Times are seconds on the boot
clock.

Kubernetes' crash-loop back-off: the first restart at once, then 10, 20, 40 … 300 s after the end of the container;
a container that ran for ten minutes since its last restart starts over (twice the longest delay: kubelet's
back-off entries expire so).
"""

from dataclasses import dataclass

FIRST_S = 10.0
LONGEST_S = 300.0
RESET_S = 600.0

RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 60.0


@dataclass(frozen=True)
class Backoff:
    """`delay_s` is what the next restart has to wait after the end of the container; 0: it was never restarted."""

    delay_s: float = 0.0
    restarted_s: float = 0.0


def due_s(backoff: Backoff, ended_s: float) -> float:
    """When a container that ended at `ended_s` may start again."""
    return ended_s if _expired(backoff, ended_s) else ended_s + backoff.delay_s


def restarted(backoff: Backoff, ended_s: float, now_s: float) -> Backoff:
    """The back-off after a restart at `now_s`: 0 → 10 → 20 → 40 → 80 → 160 → 300 → 300 …"""
    if _expired(backoff, ended_s):
        return Backoff(FIRST_S, now_s)
    return Backoff(min(LONGEST_S, 2 * backoff.delay_s), now_s)


def pull_delay_s(failures: int) -> float:
    """Wait after that many failed pulls in a row: 10, 20, 40 … 300 s."""
    return float(min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 10)))


def retry_delay_s(failures: int) -> float:
    """Wait after that many failed operations on the engine or the disk in a row: 1, 2, 4 … 60 s."""
    return float(min(RETRY_LONGEST_S, RETRY_FIRST_S * 2 ** min(failures - 1, 10)))


def _expired(backoff: Backoff, ended_s: float) -> bool:
    return backoff.delay_s <= 0 or ended_s - backoff.restarted_s >= RESET_S
