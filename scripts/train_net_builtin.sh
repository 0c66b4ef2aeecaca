#!/bin/sh
# Trains with detectron2's DefaultTrainer: sh scripts/train_net_builtin.sh --config-file FILE [ARGUMENTS]
# The same as `python train_net_builtin.py` in the environment that scripts/install.sh has set up.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/env.sh"
if [ ! -x "$PYTHON" ]; then
    echo "error: $PYTHON is not there; run \`bash scripts/install.sh\` first, or activate an environment" >&2
    exit 2
fi
exec "$PYTHON" "$ROOT/train_net_builtin.py" "$@"
