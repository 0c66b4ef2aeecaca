#!/usr/bin/env bash
# The tests that need a GPU and a short benchmark, on one card: bash scripts/gpu_check.sh [ARGUMENTS OF tools/gpu_check.py]
# Needs an environment with the extras dev and timm, and no network; ends within 8 minutes. Exit code 1: a test or the
# benchmark failed or took too long; 2: there is no GPU.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/scripts/env.sh"
require_python
cd "$ROOT"
if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "error: this machine has no GPU that torch can use" >&2
    exit 2
fi
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
failed=0
timeout 220 "$PYTHON" -m pytest -q -m gpu || failed=1
timeout 250 "$PYTHON" tools/gpu_check.py "$@" || failed=1
[ "$failed" -eq 0 ] || echo "error: the tests or the benchmark failed, or took too long (see above)" >&2
exit "$failed"
