#!/usr/bin/env bash
# From a fresh clone to a trained classifier: bash scripts/quickstart.sh [KEY VALUE ...]
# Trains on scikit-learn's handwritten digits, evaluates and writes a report. A finished run is only evaluated again,
# unless KEY VALUE pairs of the config are given.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo
. "$ROOT/scripts/env.sh"
cd "$ROOT"

output=output/quickstart/digits_mnetv1_025
previous=
for argument in "$@"; do
    [ "$previous" != OUTPUT_DIR ] || output=$argument
    previous=$argument
done
train=("$PYTHON" train_net_builtin.py --num-gpus 0 --config-file configs/quickstart/digits_mnetv1_025.yaml)

# detectron2 names a checkpoint in this file only after writing it completely.
last=$(cat "$output/last_checkpoint" 2>/dev/null || true)
if [ $# -eq 0 ] && [ "$last" = model_final.pth ] && [ -f "$output/$last" ]; then
    echo "evaluating the existing $output/$last; to train again, remove $output"
    "${train[@]}" --eval-only MODEL.WEIGHTS "$output/$last"
else
    "${train[@]}" "$@"
fi
"$PYTHON" tools/report.py "$output"
