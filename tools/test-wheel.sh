#!/usr/bin/env bash
# Builds the wheel, installs it elsewhere, and runs the tests against it:
#   tools/test-wheel.sh [PYTHON [JAX [PYTEST-ARGUMENTS...]]]
#   tools/test-wheel.sh python3.13 jax==0.10.0 tests/envs
# JAX is a requirement such as jax==0.10.0; with none, and with `lock`, all is as locked; with
# `newest`, everything is the newest that the project allows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${1:-$(tools/find-python.sh)}
jax=${2:-lock}
shift $(($# < 2 ? $# : 2))
tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then tests=(tests); fi

uv=$PWD/.venv/bin/uv
tree=$PWD
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

# copy TO: what is in the repository, and what would be added to it.
copy() {
    mkdir -p "$1"
    git ls-files --cached --others --exclude-standard | while read -r file; do
        if [ -f "$file" ]; then cp --parents "$file" "$1"; fi
    done
}

echo "==> the wheel"
copy "$away/source"
.venv/bin/python -m build --wheel --no-isolation --outdir "$away" "$away/source" \
    >"$away/build.log" 2>&1 || { cat "$away/build.log"; exit 1; }
wheel=$(echo "$away"/*.whl)

echo "==> $("$python" --version), $jax"
"$uv" venv --quiet --python "$python" "$away/venv"
extras="[gym,brax,notebooks,dev]"
case $jax in
    lock) how=(--constraint requirements/dev.txt "kairos-rl$extras @ file://$wheel") ;;
    newest) how=(--upgrade "kairos-rl$extras @ file://$wheel") ;;
    *) how=("$jax" "${jax/jax/jaxlib}" "kairos-rl$extras @ file://$wheel") ;;
esac
"$uv" pip install --quiet --python "$away/venv/bin/python" "${how[@]}"

# Without the packages: what is imported has to be the wheel.
copy "$away/elsewhere"
rm -r "$away"/elsewhere/{discovery,envs,learned_objectives}
cd "$away/elsewhere"
"$away/venv/bin/python" - "$tree" <<'EOF'
import sys
import discovery, envs, jax, learned_objectives

for package in (discovery, envs, learned_objectives):
    assert not package.__file__.startswith(sys.argv[1]), package.__file__
print(f"==> Python {sys.version.split()[0]}, jax {jax.__version__}, {discovery.__file__}")
EOF
# These are about the tree: its packaging, its Makefile, its pages.
apart=()
for name in packaging make readme results citation; do apart+=(--ignore "tests/test_$name.py"); done
"$away/venv/bin/python" -m pytest -q -m "not slow" "${tests[@]}" "${apart[@]}"
