#!/usr/bin/env bash
# Kills trainings again and again and compares how they end: bash scripts/soak.sh [KILLS], 100 without a number.
# Both entry scripts, with their command lines and from their first line to their last, on 1 and 2 processes, each with 0
# and 2 loader workers. Each start is a fork of a process that has imported everything, which makes it ten times as fast.
# Prints a line for each kill, and at the end whether every run ended with the same bits as an uninterrupted one;
# the exit code is 1 if not.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo
. "$ROOT/scripts/env.sh"
cd "$ROOT"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" tests/faults/soak.py "$@"
