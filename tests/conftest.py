"""For all tests: how Hypothesis looks for examples.

A plain run tries the same examples each time, so that it judges a change and not luck. `HYPOTHESIS_PROFILE=explore` looks for
new ones; what it finds becomes an @example or a case of its own. Times are not judged: a busy machine is no failure.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("repeat", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# A job in a shell's background ignores Ctrl-C, and so would the programs that tests start and end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)
