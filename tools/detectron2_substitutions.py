"""The changes to detectron2 0.6 that let it run on current Python packages without a compiler.

``tools/install_detectron2.py`` applies this table to the official sources before it builds a wheel. Each
text must occur exactly as often as its entry says; otherwise no file is changed.
"""

import re
from pathlib import Path
from typing import NamedTuple

NUMPY = "numpy 1.24 removed these names for Python's own types"
PILLOW = "Pillow 10 removed LINEAR, the old name of BILINEAR"
COMPILED = "the extension is not compiled, and only a call into it may fail"
CAFFE2 = "PyTorch dropped caffe2, and detectron2's tracing and FLOP count need only the rest of the package"
SETUPTOOLS = "setuptools 82 removed pkg_resources"


class Substitution(NamedTuple):
    """Replaces ``old``, which occurs ``count`` times as whole words in ``file``, by ``new``."""

    file: str
    old: str
    new: str
    count: int
    why: str


class SubstitutionError(Exception):
    """The sources differ from those that the table was written for."""


_IMPORT_C = "from detectron2 import _C"
_GUARDED_IMPORT_C = """\
try:
    from detectron2 import _C
except ImportError:

    class _NotCompiled:
        def __getattr__(self, name):
            raise ImportError(
                f"detectron2._C.{name} is not in this pure-Python build of detectron2; "
                "it needs the official build: https://github.com/facebookresearch/detectron2"
            )

    _C = _NotCompiled()"""

SUBSTITUTIONS = (
    Substitution("detectron2/data/build.py", "np.int", "int", 2, NUMPY),
    Substitution("detectron2/data/datasets/pascal_voc.py", "np.str", "str", 1, NUMPY),
    Substitution("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool", "bool", 2, NUMPY),
    Substitution("detectron2/evaluation/sem_seg_evaluation.py", "np.int", "int", 2, NUMPY),
    Substitution("detectron2/evaluation/sem_seg_evaluation.py", "np.float", "float", 5, NUMPY),
    Substitution("detectron2/structures/masks.py", "np.bool", "bool", 3, NUMPY),
    Substitution("detectron2/utils/video_visualizer.py", "np.bool", "bool", 1, NUMPY),
    Substitution("detectron2/utils/visualizer.py", "np.bool", "bool", 3, NUMPY),
    Substitution("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1, PILLOW),
    Substitution("detectron2/layers/deform_conv.py", _IMPORT_C, _GUARDED_IMPORT_C, 1, COMPILED),
    Substitution("detectron2/layers/roi_align_rotated.py", _IMPORT_C, _GUARDED_IMPORT_C, 1, COMPILED),
    Substitution("detectron2/layers/rotated_boxes.py", _IMPORT_C, _GUARDED_IMPORT_C, 1, COMPILED),
    Substitution(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt",
        """\
try:
    from detectron2.evaluation.fast_eval_api import COCOeval_opt
except ImportError:
    COCOeval_opt = COCOeval""",
        1,
        COMPILED,
    ),
    Substitution(
        "detectron2/evaluation/coco_evaluation.py",
        "self._use_fast_impl = use_fast_impl",
        """\
if use_fast_impl and COCOeval_opt is COCOeval:
            self._logger.info("The fast COCO evaluation is not compiled: pycocotools' own is used.")
            use_fast_impl = False
        self._use_fast_impl = use_fast_impl""",
        1,
        COMPILED,
    ),
    Substitution(
        "detectron2/model_zoo/model_zoo.py", "import pkg_resources\nimport torch", "import torch", 1, SETUPTOOLS
    ),
    Substitution(
        "detectron2/model_zoo/model_zoo.py",
        """\
pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )""",
        """\
os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "configs", config_path
    )""",
        1,
        SETUPTOOLS,
    ),
    Substitution(
        "detectron2/export/__init__.py",
        "from .api import *",
        """\
try:
    from .api import *
except ImportError:
    pass""",
        1,
        CAFFE2,
    ),
)


def apply_substitutions(root: Path, table: tuple[Substitution, ...] = SUBSTITUTIONS) -> None:
    """Applies ``table`` to the files under ``root``, to all of them or none.

    Raises:
        SubstitutionError: a file is missing, or the number of occurrences differs.
    """
    changed: dict[Path, str] = {}
    for item in table:
        path = root / item.file
        if path not in changed:
            if not path.is_file():
                raise SubstitutionError(f"{item.file} is missing from the sources")
            changed[path] = path.read_text(encoding="utf-8")
        text, found = _whole_words(item.old).subn(lambda _, new=item.new: new, changed[path])
        if found != item.count:
            raise SubstitutionError(f"{item.file} has {item.old!r} {found} times, not {item.count}")
        changed[path] = text
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")


def _whole_words(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
