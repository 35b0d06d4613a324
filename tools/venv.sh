#!/usr/bin/env bash
# Makes the virtual environment with sshoal and its development tools. Argument: its directory.
set -euo pipefail
venv=$1
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "sshoal's controller needs Python 3.11 or newer; python3 here is $(python3 --version)" >&2
    exit 1
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    tools/packages.sh python
fi
echo "==> Python packages into $venv (once; pyproject.toml lists them)"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
pip() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" 2> >(grep -v '^WARNING: Location' >&2); }
# The very files that were tested: a release of tomorrow cannot break a clone of today.
pip --require-hashes --requirement requirements.lock
# A plain path file: the other kind of editable install searches at each start, which costs a command 20 ms.
pip --no-deps --config-settings editable_mode=compat --editable .
# As an installation does: where Python may not write (PYTHONDONTWRITEBYTECODE), each command would compile all of it anew.
"$venv/bin/python" -m compileall -q controller nodeagent inventory lab
if ! lacking=$("$venv/bin/pip" check --disable-pip-version-check); then
    printf '%s\nrequirements.lock lacks what pyproject.toml asks for: make lock\n' "$lacking" >&2
    exit 1
fi
