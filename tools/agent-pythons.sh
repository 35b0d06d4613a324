#!/usr/bin/env bash
# Runs the agent's unit tests on the oldest and the newest Python that hosts bring, if this machine has them. MINORS="9 10 12": on others.
# Tests that need the controller, whose Python is newer, are left out: they run with all the others.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."
tests=(tests/unit/test_{agent_*,podman_*,protocol*}.py tests/unit/test_{files,probes,server,spec,storage,streams}.py)
found=0
for minor in ${MINORS:-9 13}; do
    python=
    for candidate in ~/.pyenv/versions/3."$minor".*/bin/python $(command -v "python3.$minor" || true); do
        if "$candidate" -c 'import ensurepip' 2>/dev/null; then python=$candidate; fi # pyenv's own command may lead nowhere
    done
    [ -n "$python" ] || continue
    found=1
    venv=.venv/agent-3.$minor
    if [ ! -e "$venv/ready" ]; then
        echo "==> Python 3.$minor: packages of the agent into $venv (once)"
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check podman==5.8.0 requests==2.32.5 urllib3==2.6.3 tomli==2.0.2 \
            pytest pytest-timeout hypothesis 2> >(grep -v '^WARNING: Location' >&2)
        touch "$venv/ready"
    fi
    echo "==> the agent on Python 3.$minor"
    "$venv/bin/python" -m pytest -q -c tools/agent-pytest.ini --hypothesis-profile ci --rootdir . "${tests[@]}"
done
[ $found = 1 ] || echo "no such Python beside $(python3 --version) is here: the agent was tested on that only"
