#!/usr/bin/env bash
# Lint, types, tests and the manual: bash scripts/test.sh [ARGUMENTS OF PYTEST]
# Without arguments, all tests run and must cover 93 % of the package's lines, and the manual is built.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo,dev,docs,shards,timm
. "$ROOT/scripts/env.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# Most tests are small; with more threads each they would only slow each other down.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
[ $# -eq 0 ] || exec "$PYTHON" -m pytest -q "$@"
bash "$ROOT/scripts/docs.sh"
# Without a network the tests that need real weights are skipped, except in CI.
bash "$ROOT/scripts/real_weights.sh" || [ -z "${CI:-}" ]
# The runs that are killed go without coverage, which would slow down every process that they start.
"$PYTHON" -m pytest -q tests/faults
"$PYTHON" -m pytest -q -m "not slow" --ignore tests/faults --cov imgcls --cov-report=
exec "$PYTHON" -m pytest -q -m slow --cov imgcls --cov-append --cov-report term:skip-covered --cov-fail-under 93
