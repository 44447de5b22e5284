#!/usr/bin/env bash
# Makes .venv from a hashed lock: tools/install.sh run|dev
#
# A stamp in .venv names what it was made from. While that stands, this script
# does nothing and needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

locked=$1
python=.venv/bin/python
lock=requirements/$locked.txt
wanted=$(cat requirements/uv.txt "$lock" pyproject.toml | cksum)

# A folder that was moved, or whose Python is gone, has to be made anew.
works() {
    grep -qF -- "$PWD/.venv" .venv/pyvenv.cfg && $python -c 'import pip'
} 2>/dev/null

if works && [ "$(cat ".venv/installed-$locked" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# Runs a command; where no terminal shows its progress, says that it goes on.
patiently() {
    if [ -t 2 ]; then
        "$@"
        return
    fi
    "$@" &
    local job=$! seconds=0
    trap 'kill $job 2>/dev/null; exit 130' INT TERM
    while kill -0 $job 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 5)) -eq 0 ]; then echo "    still installing, $seconds s"; fi
    done
    trap - INT TERM
    wait $job
}

if ! works; then
    base=$(tools/find-python.sh)
    echo "==> making .venv with $("$base" --version)"
    "$base" -m venv --clear .venv
fi
rm -f .venv/installed-*

# With no byte code on disk, every process would compile all it imports.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then export UV_COMPILE_BYTECODE=1; fi

echo "==> installing the packages of $lock"
if $python -m pip install -qq --require-hashes --only-binary :all: -r requirements/uv.txt; then
    install() { .venv/bin/uv pip install --quiet --python $python "$@"; }
else
    echo "    no uv for this machine: going on with pip, which is slower"
    install() { $python -m pip install -qq "$@"; }
fi
patiently install --require-hashes --only-binary :all: -r "$lock"
install --no-build-isolation --no-deps --editable .

echo "$wanted" >".venv/installed-$locked"
# The lock for development holds every pin of the one for running.
if [ "$locked" = dev ]; then
    cat requirements/uv.txt requirements/run.txt pyproject.toml | cksum >.venv/installed-run
fi
echo "==> .venv is ready"
