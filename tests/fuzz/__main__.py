"""`make fuzz`: hostile inputs without end, for one target or for all in turn, until one crashes it or Ctrl-C.

What crashed is written to build/fuzz/TARGET/ and told with the command that repeats it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.mutate import inputs
from tests.fuzz.targets import TARGETS, Target

ROUND = 500
SLOW_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all when none is named")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed gives the same inputs")
    parser.add_argument("--inputs", type=int, default=0, help="end after so many for each target; 0: never")
    parser.add_argument("--file", type=Path, help="judge this one input")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if options.file:
        TARGETS[names[0]].run(options.file.read_bytes())
        return 0
    sources = {name: inputs(TARGETS[name].corpus(), TARGETS[name].words, options.seed) for name in names}
    print(f"seed {options.seed}; Ctrl-C ends", flush=True)
    for turn in itertools.count(1):
        for name in names:
            for data in itertools.islice(sources[name], ROUND):
                trouble = _trouble(TARGETS[name], data)
                if trouble:
                    _keep(name, data, trouble)
                    return 1
        print(f"{turn * ROUND} inputs each for {', '.join(names)}", flush=True)
        if options.inputs and turn * ROUND >= options.inputs:
            return 0
    return 0


def _trouble(target: Target, data: bytes) -> str:
    begun_s = time.monotonic()
    try:
        target.run(data)
    except target.refusals:
        pass
    except Exception:
        return traceback.format_exc()
    took_s = time.monotonic() - begun_s
    return f"took {took_s:.0f} s" if took_s > SLOW_S else ""


def _keep(name: str, data: bytes, trouble: str) -> None:
    path = Path("build/fuzz") / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{trouble}\n{name}: kept as {path}; again: python -m tests.fuzz {name} --file {path}", file=sys.stderr)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
