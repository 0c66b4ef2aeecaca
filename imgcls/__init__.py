"""Image classification for detectron2.

Importing it registers the backbones, the meta-architecture and the dataset names; it reads no data and
leaves detectron2's default config as it is.
"""

from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "imgcls needs detectron2, which is not installed: run `python tools/install_detectron2.py` in the "
        "imgcls checkout, or install the official build from https://github.com/facebookresearch/detectron2",
        name="detectron2",
    )

if find_spec("cv2") is None:
    raise ModuleNotFoundError(
        "imgcls needs OpenCV, and no cv2 is installed: pip install opencv-python-headless", name="cv2"
    )

from imgcls import data, modeling

__all__ = ["__version__", "data", "modeling"]
