"""`python -m tests.sim SEED`: lives through one seed again and tells what happened."""

import sys
import time

from tests.sim.world import run


def main() -> None:
    seed = int(sys.argv[1])
    started = time.monotonic()
    outcome = run(seed)
    print(
        f"seed {seed}: {outcome.simulated_s:.0f} s simulated in {time.monotonic() - started:.1f} s, {outcome.passes} passes"
    )
    print(", ".join(f"{count} × {fault}" for fault, count in sorted(outcome.faults.items())))
    for violation in outcome.violations:
        print(f"VIOLATION {violation}")
    sys.exit(bool(outcome.violations))


main()
