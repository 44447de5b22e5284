#!/usr/bin/env bash
# Prints the first Python that Kairos can use. It runs each candidate, since
# a name on PATH may be a shim with no interpreter behind it.
set -euo pipefail

candidates=(python3 python3.13 python3.12 python3.11 python)
if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi

for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        if ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "$candidate has no venv or pip of its own (on Debian: install python3-venv)." >&2
            continue
        fi
        echo "$candidate"
        exit 0
    fi
done
echo "Kairos needs Python 3.11 or later, with pip and venv; tried: ${candidates[*]}." >&2
echo "Name another one with: make PYTHON=/path/to/python3 ..." >&2
exit 1
