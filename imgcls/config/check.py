"""Checks of config values, made once before anything is built."""

import difflib
import math
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.registry import Registry

from imgcls.errors import UserError

ACTIVATIONS = ("relu6", "relu", "leaky_relu")
AUGMENTATIONS = ("none", "trivialaugment", "randaugment")
FORMATS = ("BGR", "RGB")
HEADS = ("softmax", "sigmoid")
PRECISIONS = ("float16", "bfloat16")
# The names that detectron2 0.6 and its main branch share.
NORMS = ("BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


def check_cfg(cfg: CfgNode) -> None:
    """Checks what a config says against what is allowed; feature names are checked where they are built.

    Raises:
        ValueError: a value that is not allowed, with the key, what came and what is allowed.
    """
    for key, allowed, test in _RULES:
        value = _get(cfg, key)
        if not test(value):
            raise UserError(f"{key} is {value!r}; allowed: {allowed}")
    _check_registered("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY)
    _check_registered("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY)
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        _check_clsnet(cfg)


def _check_registered(key: str, name: str, registry: Registry) -> None:
    if name not in registry:
        known = [known for known, _ in registry]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{key} is {name!r}; {hint}registered are {', '.join(sorted(known))}")


def _check_clsnet(cfg: CfgNode) -> None:
    clsnet = cfg.MODEL.CLSNET
    if cfg.INPUT.FORMAT not in FORMATS:
        raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; allowed: one of {list(FORMATS)}")
    classes = clsnet.NUM_CLASSES
    # detectron2's schedules would hold the learning rate near 0 for the whole run, without a word.
    warm_up, whole = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if warm_up > 0 and warm_up >= whole:
        raise UserError(f"SOLVER.WARMUP_ITERS is {warm_up}; allowed: 0 to below SOLVER.MAX_ITER {whole}")
    if isinstance(clsnet.POS_WEIGHT, (list, tuple)) and classes != -1 and len(clsnet.POS_WEIGHT) != classes:
        raise UserError(
            f"MODEL.CLSNET.POS_WEIGHT has {len(clsnet.POS_WEIGHT)} values for MODEL.CLSNET.NUM_CLASSES {classes}; "
            'allowed: one value a class, "auto", or None'
        )
    if clsnet.HEAD == "softmax" and classes != -1 and min(cfg.TEST.TOPK) > classes:
        raise UserError(f"TEST.TOPK is {list(cfg.TEST.TOPK)}; allowed: at least one of 1 to {classes}, the class count")
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(cfg.MODEL[key]) != 3:
            came = list(cfg.MODEL[key])
            raise UserError(f"MODEL.{key} is {came}; allowed: three numbers, in the order of INPUT.FORMAT")
    if clsnet.HEAD == "softmax" and clsnet.POS_WEIGHT is not None:
        raise UserError("MODEL.CLSNET.POS_WEIGHT is for MODEL.CLSNET.HEAD 'sigmoid'; set it to None for 'softmax'")
    if clsnet.HEAD == "sigmoid" and clsnet.LABEL_SMOOTHING:
        raise UserError("MODEL.CLSNET.LABEL_SMOOTHING is for MODEL.CLSNET.HEAD 'softmax'; set it to 0.0 for 'sigmoid'")


def _get(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _above_zero(value: Any) -> bool:
    return _number(value) and value > 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _whole_from(lowest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _range(top: float) -> Callable[[Any], bool]:
    return lambda v: len(v) == 2 and all(map(_above_zero, v)) and v[0] <= v[1] <= top


def _list_of(test: Callable[[Any], bool], empty: bool = False) -> Callable[[Any], bool]:
    return lambda value: (bool(value) or empty) and all(map(test, value))


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("MODEL.MNET.WIDTH_MULT", "a number above 0", _above_zero),
    ("MODEL.MNET.DEPTH_MULT", "a number above 0", _above_zero),
    ("MODEL.MNET.BLOCKS", "[] or whole numbers from 1, one a row", _list_of(_whole_from(1), empty=True)),
    ("MODEL.MNET.STEM_STRIDE", "1 or 2", lambda v: v in (1, 2)),
    ("MODEL.MNET.ACTIVATION", f"one of {list(ACTIVATIONS)}", lambda v: v in ACTIVATIONS),
    ("MODEL.MNET.NORM", f"one of {list(NORMS)}", lambda v: v in NORMS),
    ("MODEL.MNET.BN_EPS", "a number above 0", _above_zero),
    ("MODEL.MNET.BN_MOMENTUM", "a number from 0 to 1", _share),
    ("MODEL.BACKBONE.FREEZE_AT", "a whole number from 0", _whole_from(0)),
    (
        "MODEL.CLSNET.NUM_CLASSES",
        "a whole number from 1, or -1 to take it from the data",
        lambda v: v == -1 or _whole_from(1)(v),
    ),
    ("MODEL.CLSNET.INPUT_SIZE", "a whole number of pixels from 1", _whole_from(1)),
    ("MODEL.CLSNET.HEAD", f"one of {list(HEADS)}", lambda v: v in HEADS),
    ("MODEL.CLSNET.HEAD_CONV_DIM", "a whole number from 0", _whole_from(0)),
    ("MODEL.CLSNET.DROPOUT", "a number from 0 to 1", _share),
    ("MODEL.CLSNET.LABEL_SMOOTHING", "a number from 0 to 1", _share),
    (
        "MODEL.CLSNET.POS_WEIGHT",
        'numbers above 0, one a class, "auto", or None',
        lambda v: v is None or v == "auto" or (isinstance(v, (list, tuple)) and all(map(_above_zero, v))),
    ),
    ("MODEL.PIXEL_STD", "numbers above 0, one a channel", _list_of(_above_zero)),
    ("INPUT.RANDOM_FLIP", "'none', 'horizontal' or 'vertical'", lambda v: v in ("none", "horizontal", "vertical")),
    ("INPUT.CROP_PCT", "a number above 0, at most 1", lambda v: _above_zero(v) and v <= 1),
    ("INPUT.CROP_SCALE", "two numbers above 0, rising, at most 1", _range(1)),
    ("INPUT.CROP_RATIO", "two numbers above 0, rising", _range(math.inf)),
    ("INPUT.AUGMENTATION", f"one of {list(AUGMENTATIONS)}", lambda v: v in AUGMENTATIONS),
    ("INPUT.RANDOM_ERASING", "a number from 0 to 1", _share),
    ("DATALOADER.BAD_IMAGES", "'error' or 'skip'", lambda v: v in ("error", "skip")),
    ("SOLVER.IMS_PER_BATCH", "a whole number from 1", _whole_from(1)),
    ("SOLVER.EPOCHS", "a whole number from 1, or 0 for SOLVER.MAX_ITER", _whole_from(0)),
    ("SOLVER.WARMUP_EPOCHS", "a whole number from 0, or -1 for SOLVER.WARMUP_ITERS", _whole_from(-1)),
    ("SOLVER.STEP_EPOCHS", "() for SOLVER.STEPS, or whole numbers from 1", _list_of(_whole_from(1), empty=True)),
    ("SOLVER.ACCUM_STEPS", "a whole number from 1", _whole_from(1)),
    ("SOLVER.EMA_DECAY", "a number from 0 to below 1", lambda v: _share(v) and v < 1),
    ("SOLVER.KEEP_CHECKPOINTS", "a whole number from 0", _whole_from(0)),
    ("SOLVER.LOG_PERIOD", "a whole number from 1", _whole_from(1)),
    ("SOLVER.AMP.PRECISION", f"one of {list(PRECISIONS)}", lambda v: v in PRECISIONS),
    ("TEST.PATIENCE", "a whole number from 0", _whole_from(0)),
    ("TEST.TOPK", "whole numbers from 1", _list_of(_whole_from(1))),
    ("TEST.THRESHOLD", "a number from 0 to 1", _share),
)
