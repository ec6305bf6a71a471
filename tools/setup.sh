#!/usr/bin/env bash
# Makes .venv with exactly what requirements.lock pins. Writes to the checkout and to one cache folder, and can be killed anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

suits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3 python3.12 python3.11; do
    if suits "$candidate"; then echo "$candidate"; return; fi
  done
  fail "Python 3.11 or 3.12 is needed and was not found (python3 is $(python3 --version 2>&1 || true))." \
    "On Debian or Ubuntu: apt install python3 python3-venv. Or name one: make setup PYTHON=/path/to/python3.12"
}

if ! suits .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python="$(find_python)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module. On Debian or Ubuntu: apt install python3-venv"
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi

. tools/registry.sh
echo "setup: installing what requirements.lock pins (cache: $cache)"
.venv/bin/python -m pip install --quiet --require-hashes --no-deps --requirement tools/bootstrap.lock
.venv/bin/uv pip sync --python .venv/bin/python --require-hashes requirements.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation \
  --config-settings editable_mode=compat --editable .

# Kafka's jars are fetched meanwhile; without them everything else works, and `datarun up` says what is missing.
.venv/bin/datarun prepare &
preparing=$!

# Otherwise the first start of every service would compile what it imports, and every start where no bytecode may be written.
echo "setup: compiling"
unused='/tests?/|/testing/|site-packages/(mypy|hypothesis|grimp|importlinter|setuptools|pkg_resources|pip|_pytest|pygments|[a-z0-9_]+-stubs|types_[a-z]+)'
.venv/bin/python -m compileall -q -j 0 -x "$unused" .venv/lib datarun services || true
wait "$preparing" || echo "setup: Kafka is not prepared; it will be at the first start"
