#!/usr/bin/env bash
# Sets up everything: bash scripts/install.sh [EXTRAS]   (EXTRAS as in setup.py, with commas; default: demo)
# Uses the active virtual environment, or .venv in this checkout. Working installations of torch, torchvision, detectron2
# and OpenCV are left untouched. Needs no compiler, no GPU and no root.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/scripts/env.sh"
extras=${1:-demo}
constraints=$ROOT/scripts/constraints.txt

fail() {
    echo "error: $*" >&2
    exit 2
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

make_environment() {
    local candidate
    for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
        new_enough "$candidate" || continue
        echo "creating $VENV with $candidate"
        "$candidate" -m venv --clear "$VENV" && return
        rm -rf "$VENV"
        fail "$candidate cannot create a virtual environment (see its message above); on Debian and Ubuntu: apt install python3-venv"
    done
    fail "no Python 3.10 or newer is on the PATH (python3 is $(python3 --version 2>&1 || true)); install one"
}

imports() {
    "$PYTHON" -c "import $1" >/dev/null 2>&1
}

# Pins the installed versions, so that pip does not replace them.
pin_installed() {
    "$PYTHON" -c '
import sys
from importlib.metadata import version
for name in sys.argv[1:]:
    print(f"{name}=={version(name)}")' "$@" >"$kept"
}

pip_install() {
    "$PYTHON" -m pip --disable-pip-version-check install -c "$constraints" -c "$kept" "$@"
}

if [ ! -x "$PYTHON" ]; then
    [ "$VENV" = "$ROOT/.venv" ] || fail "the active environment $VENV has no bin/python; deactivate it or create it again"
    make_environment
fi
new_enough "$PYTHON" || fail "$PYTHON is $("$PYTHON" --version 2>&1); Python 3.10 or newer is needed: deactivate it, or activate another"

if "$PYTHON" "$ROOT/scripts/stamp.py" check "$extras"; then
    exit 0
fi

echo "setting up $VENV"
"$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip
kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
imports "setuptools, wheel" || pip_install -q "setuptools>=64" wheel
if ! imports "torch, torchvision"; then
    ! imports torch || pin_installed torch
    echo "installing torch and torchvision: this takes minutes"
    pip_install torch torchvision
fi
pin_installed torch torchvision
imports cv2 || pip_install -q opencv-python-headless
"$PYTHON" "$ROOT/tools/install_detectron2.py"
pip_install -q --no-build-isolation -e "$ROOT[$extras]"
"$PYTHON" "$ROOT/scripts/stamp.py" write "$extras"
echo "$VENV is set up"
