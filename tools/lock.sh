#!/usr/bin/env bash
# Writes the hashed locks anew, keeping the versions they have.
# To take newer ones: tools/lock.sh --upgrade
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One lock serves all systems and Pythons: where versions differ, by marker.
compile() {
    local out=$1
    shift
    echo "==> requirements/$out.txt"
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-annotate --custom-compile-command "make lock" "$@" --output-file "requirements/$out.txt"
}

packages=(pyproject.toml --group backend --extra gym --extra brax)
compile uv --group bootstrap "$@"
compile run "${packages[@]}" "$@"
compile dev "${packages[@]}" --extra dev --extra notebooks --constraint requirements/run.txt "$@"
