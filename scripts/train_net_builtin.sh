#!/bin/sh
# Trains with detectron2's DefaultTrainer: sh scripts/train_net_builtin.sh --config-file FILE [ARGUMENTS]
# Runs `python train_net_builtin.py` in the environment that scripts/install.sh has set up.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/env.sh"
require_python
exec "$PYTHON" "$ROOT/train_net_builtin.py" "$@"
