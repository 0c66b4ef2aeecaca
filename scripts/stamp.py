"""Records in the environment what scripts/install.sh has installed, so that its next run ends at once.

    python scripts/stamp.py {check,write} EXTRAS

``check`` exits with 0 if this checkout, in its present state, is installed with at least EXTRAS. It imports none of the
packages, because PyTorch alone would take seconds.
"""

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = Path(sys.prefix) / "imgcls-install.json"
INSTALL_FILES = (
    "setup.py",
    "scripts/constraints.txt",
    "scripts/install.sh",
    "scripts/stamp.py",
    "tools/install_detectron2.py",
    "tools/detectron2_substitutions.py",
)
MODULES = ("torch", "torchvision", "detectron2", "cv2", "fvcore", "yacs", "torchmetrics", "numpy", "PIL", "matplotlib")
EXTRA_MODULES = {
    "demo": ("sklearn", "skimage"),
    "dev": ("pytest", "pytest_cov", "mypy"),
    "timm": ("timm",),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "shards": ("webdataset",),
    "docs": ("sphinx", "myst_parser", "furo", "nbclient"),
}


def key() -> str:
    """A hash of the checkout's path and of every file that determines what is installed."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INSTALL_FILES:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def stamped() -> set[str]:
    """The extras that this checkout, in its present state, was installed with; empty if it was not."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        return set(stamp["extras"]) if stamp["key"] == key() else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def is_installed(extras: set[str]) -> bool:
    """Whether every package can be found, and ``imgcls`` in this checkout."""
    package = find_spec("imgcls")
    if package is None or package.origin is None or Path(package.origin).parent.parent != ROOT:
        return False
    wanted = [*MODULES, *(name for extra in extras for name in EXTRA_MODULES.get(extra, ()))]
    return all(find_spec(name) for name in wanted)


def main() -> int:
    """Runs the command; returns its exit code."""
    command, extras = sys.argv[1], set(sys.argv[2].split(","))
    if command == "check":
        return 0 if extras <= stamped() and is_installed(extras) else 1
    STAMP.write_text(json.dumps({"key": key(), "extras": sorted(extras | stamped())}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
