#!/usr/bin/env bash
# Lint and all tests: bash scripts/test.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo,dev,shards,timm
. "$ROOT/scripts/env.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# The tests are many small jobs: more threads than this only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
exec "$PYTHON" -m pytest -q "$@"
