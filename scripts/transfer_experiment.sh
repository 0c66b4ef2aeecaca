#!/usr/bin/env bash
# Measures whether handing over a classifier's backbone pays: bash scripts/transfer_experiment.sh [FOLDER]
# Makes the synthetic detection set, trains a classifier, exports its backbone, and trains the same detector from it and
# from random weights, once per seed; ends with a table and an image. Finished runs are not repeated.
# To change it: SEEDS="1 2 3", SYNTHETIC="--train 1200 ...", PRETRAIN="KEY VALUE ..." and DETECT="KEY VALUE ...".
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo
. "$ROOT/scripts/env.sh"
cd "$ROOT"

output=${1:-output/transfer}
seeds=${SEEDS:-1 2 3}
read -ra synthetic <<<"${SYNTHETIC:-${CANVAS:-}}" # CANVAS is the old name
read -ra pretrain <<<"${PRETRAIN:-}"
read -ra detect <<<"${DETECT:-}"
detector=configs/transfer/retinanet_mnetv1_025.yaml

# train FOLDER CONFIG [KEY VALUE ...]: trains unless the run in FOLDER is finished
train() {
    local folder=$1 config=$2
    shift 2
    if [ "$(cat "$folder/last_checkpoint" 2>/dev/null)" = model_final.pth ]; then
        echo "$folder is finished; remove it to train again"
        return
    fi
    "$PYTHON" tools/train_on_synthetic_set.py --num-gpus 0 --config-file "$config" "$@" OUTPUT_DIR "$folder"
}

"$PYTHON" tools/make_synthetic_detection_set.py "${synthetic[@]}"
note=${DETECTRON2_DATASETS:-datasets}/synthetic/synthetic.json
items=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["items"])' "$note")

train "$output/pretrain" configs/transfer/pretrain_mnetv1_025.yaml \
    DATASETS.TRAIN "('${items}_train',)" DATASETS.TEST "('${items}_test',)" "${pretrain[@]}"
"$PYTHON" tools/export_backbone.py "$output/pretrain/model_final.pth" "$output/backbone.pth" --verify "$detector"
for seed in $seeds; do
    train "$output/handoff-$seed" "$detector" SEED "$seed" MODEL.WEIGHTS "$output/backbone.pth" "${detect[@]}"
    train "$output/random-$seed" "$detector" SEED "$seed" "${detect[@]}"
done
"$PYTHON" tools/transfer_report.py "$output"
