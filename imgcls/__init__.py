"""Image classification for detectron2.

Importing the package registers the backbones, the meta-architecture and the dataset names. It reads no data and does
not change detectron2's default config.
"""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "add_imgcls_config", "data", "get_cfg", "load_backbone", "modeling"]

_REQUIRED = (
    (
        "detectron2",
        "imgcls needs detectron2, which is not installed: run `python tools/install_detectron2.py` in the imgcls "
        "checkout, or install the official build from https://github.com/facebookresearch/detectron2",
    ),
    ("cv2", "imgcls needs OpenCV, which is not installed: pip install opencv-python-headless"),
)


def _is_console_command() -> bool:
    """Whether this process is ``imgcls`` or ``python -m imgcls``."""
    if sys.argv[:1] == ["-m"]:  # Python's placeholder until it has found the module
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] == "imgcls"
    return Path(sys.argv[0] if sys.argv else "").stem == "imgcls"


def _is_checkout_script() -> bool:
    """Whether this process is a script of the checkout that holds this package."""
    checkout = Path(__file__).resolve().parent.parent
    script = Path(sys.argv[0] if sys.argv else "").resolve()
    return script.parent == checkout / "tools" or script in (
        checkout / "train_net.py",
        checkout / "train_net_builtin.py",
    )


def _check_requirements() -> None:
    """Raises if a package is missing; in our own commands, prints one line and exits with code 2."""
    for module, message in _REQUIRED:
        if find_spec(module) is None:
            if _is_console_command() or _is_checkout_script():
                print(f"error: {message}", file=sys.stderr)
                raise SystemExit(2)
            raise ModuleNotFoundError(message, name=module)


# `imgcls --help` lists the verbs without these imports, which take seconds.
if not (_is_console_command() and sys.argv[1:] in ([], ["-h"], ["--help"])):
    _check_requirements()
    if _is_console_command() or _is_checkout_script():
        # detectron2 calls torch.jit.script while it is imported; the warning would precede every message of ours.
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", FutureWarning)

    from imgcls import data, modeling
    from imgcls.checkpoint import load_backbone
    from imgcls.config import add_imgcls_config, get_cfg
    from imgcls.inference.predictor import Predictor
