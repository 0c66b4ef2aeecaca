#!/usr/bin/env bash
# Lint, types, tests and the manual: bash scripts/test.sh [ARGUMENTS OF PYTEST]
# Without arguments, all tests run and must cover 93 % of the package's lines, and the manual is built.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo,dev,docs,shards,timm,cam,parquet,export,serve,wandb,mlflow
. "$ROOT/scripts/env.sh"
cd "$ROOT"
# A browser for the tests of the pages, which skip without one, except in CI.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
    { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; } >&2
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
[ $# -eq 0 ] || exec "$PYTHON" -m pytest -q "$@"
bash "$ROOT/scripts/docs.sh"
# Without a network the tests that need real weights are skipped, except in CI.
bash "$ROOT/scripts/real_weights.sh" || [ -z "${CI:-}" ]
# The runs that are killed go without coverage, which would slow down every process that they start.
"$PYTHON" -m pytest -q tests/faults
# One process a core; the tests of a file share their trained runs.
"$PYTHON" -m pytest -q -n auto --dist loadfile -m "not slow" --ignore tests/faults --cov imgcls --cov-report=
exec "$PYTHON" -m pytest -q -m slow --cov imgcls --cov-append --cov-report term:skip-covered --cov-fail-under 93
