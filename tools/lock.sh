#!/usr/bin/env bash
# Pins every dependency, with hashes and without the address of any registry; what is pinned already stays unless --upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/registry.sh

options=(--quiet --generate-hashes --no-emit-index-url --no-annotate --no-header
  --python-version 3.11 --python-platform x86_64-manylinux_2_28)

.venv/bin/uv pip compile "${options[@]}" "$@" --extra local --extra dev pyproject.toml -o requirements.lock
{
  echo "# The installer of everything else, as in requirements.lock; written by tools/lock.sh"
  awk '/^uv==/ { on = 1; print; next } /^[a-z]/ { on = 0 } on' requirements.lock
} >tools/bootstrap.lock
