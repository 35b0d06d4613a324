"""How much a seed has to live through: an hour of whatever comes, or five minutes of edits with a fault in the middle of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """How long faults and edits happen, one in `every_s` on average, none mended later than `longest_s` after it began.

    `rolling`: each fault comes a moment after a user's change, in the middle of carrying it out.
    """

    faults_s: float
    every_s: float
    longest_s: float
    rolling: bool = False


AN_HOUR = Course(faults_s=3600.0, every_s=80.0, longest_s=400.0)
ROLLOUTS = Course(faults_s=300.0, every_s=20.0, longest_s=100.0, rolling=True)


def course_of(seed: int) -> Course:
    """Two seeds of five live through an hour, the others through rollouts: what an hour is needed for does not need every seed."""
    return AN_HOUR if seed % 5 < 2 else ROLLOUTS
