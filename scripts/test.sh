#!/usr/bin/env bash
# Lint, types and tests: bash scripts/test.sh [ARGUMENTS OF PYTEST]
# Without arguments, all tests run and must cover 93 % of the package's lines.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo,dev,shards,timm
. "$ROOT/scripts/env.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# Most tests are small; with more threads each they would only slow each other down.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
[ $# -gt 0 ] || set -- --cov imgcls --cov-report term:skip-covered --cov-fail-under 93
exec "$PYTHON" -m pytest -q "$@"
