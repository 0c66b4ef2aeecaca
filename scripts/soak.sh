#!/usr/bin/env bash
# Kills training runs at random moments, resumes them and compares the results: bash scripts/soak.sh [KILLS] (default 100).
# Runs both entry scripts with their command lines, on 1 and 2 processes, each with 0 and 2 loader workers. Every start is
# a fork of a process that has imported everything, which makes it ten times faster. Prints a line for each kill; exits
# with 1 unless every run ends with the same bits as an uninterrupted one.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo
. "$ROOT/scripts/env.sh"
cd "$ROOT"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" tests/faults/soak.py "$@"
