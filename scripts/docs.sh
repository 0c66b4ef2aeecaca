#!/usr/bin/env bash
# Builds the manual into build/docs and fails on any warning: bash scripts/docs.sh [ARGUMENTS OF SPHINX-BUILD]
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo,dev,docs,shards,timm,cam,parquet
. "$ROOT/scripts/env.sh"
cd "$ROOT"
export PYTHONWARNINGS=ignore::FutureWarning # of detectron2's, about torch.jit
"$PYTHON" docs/generate.py
"$PYTHON" -m sphinx -W --keep-going -n -q -d build/doctrees docs build/docs "$@"
echo "build/docs/index.html"
