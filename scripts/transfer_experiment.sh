#!/usr/bin/env bash
# Does a backbone trained as a classifier help a detector? bash scripts/transfer_experiment.sh [FOLDER]
# Makes a synthetic detection set, trains a classifier, exports its backbone, and trains the same detector from this
# backbone and from random weights, once for each seed. Ends with a table and an image. Finished runs are not repeated.
# Variables that change it: SEEDS="1 2 3", CANVAS="--train 1200 ...", PRETRAIN="KEY VALUE ..." and DETECT="KEY VALUE ...".
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$ROOT/scripts/install.sh" demo
. "$ROOT/scripts/env.sh"
cd "$ROOT"

output=${1:-output/transfer}
seeds=${SEEDS:-1 2 3}
read -ra canvas <<<"${CANVAS:-}"
read -ra pretrain <<<"${PRETRAIN:-}"
read -ra detect <<<"${DETECT:-}"
detector=configs/transfer/retinanet_mnetv1_025.yaml

# train FOLDER CONFIG [KEY VALUE ...]: trains unless the run in FOLDER is finished
train() {
    local folder=$1 config=$2
    shift 2
    if [ "$(cat "$folder/last_checkpoint" 2>/dev/null)" = model_final.pth ]; then
        echo "$folder is finished; to train it again, remove it"
        return
    fi
    "$PYTHON" tools/train_on_canvas.py --num-gpus 0 --config-file "$config" "$@" OUTPUT_DIR "$folder"
}

"$PYTHON" tools/make_detection_canvas.py "${canvas[@]}"
canvas_json=${DETECTRON2_DATASETS:-datasets}/canvas/canvas.json
items=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["items"])' "$canvas_json")

train "$output/pretrain" configs/transfer/pretrain_mnetv1_025.yaml \
    DATASETS.TRAIN "('${items}_train',)" DATASETS.TEST "('${items}_test',)" "${pretrain[@]}"
"$PYTHON" tools/export_backbone.py "$output/pretrain/model_final.pth" "$output/backbone.pth" --verify "$detector"
for seed in $seeds; do
    train "$output/handoff-$seed" "$detector" SEED "$seed" MODEL.WEIGHTS "$output/backbone.pth" "${detect[@]}"
    train "$output/random-$seed" "$detector" SEED "$seed" "${detect[@]}"
done
"$PYTHON" tools/transfer_report.py "$output"
