#!/bin/sh
# Trains on ImageNet with the plain trainer, on all GPUs of this machine: sh scripts/train_net.sh DATA_DIR [ARGUMENTS]
# DATA_DIR holds ILSVRC2012_img_train and ILSVRC2012_img_val, or train and val. The recipe is for 8 GPUs with 128 images each.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/env.sh"
require_python
exec "$PYTHON" "$ROOT/train_net.py" --config-file "$ROOT/configs/ImageNet/mnetv1_100.yaml" \
    --multiprocessing-distributed --workers 8 --epochs 120 --batch-size 1024 --lr 0.4 "$@"
