"""Checks of config values, made once before anything is built."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import detectron2.config
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.registry import Registry

from imgcls.config.defaults import get_cfg
from imgcls.errors import UserError

ACTIVATIONS = ("relu6", "relu", "leaky_relu")
AUGMENTATIONS = ("none", "trivialaugment", "randaugment")
FORMATS = ("BGR", "RGB")
LOGGERS = ("wandb", "mlflow")
HEADS = ("softmax", "sigmoid")
PRECISIONS = ("float16", "bfloat16")
PREPROCESSING = ("check", "adopt")
# The names that detectron2 0.6 and its main branch share.
NORMS = ("BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")

# Keys of detectron2 that a ClsNet does not use. Sizes and INPUT.CROP are not among them: base configs set these.
_UNUSED = (
    "DATALOADER.SAMPLER_TRAIN",
    "DATALOADER.REPEAT_THRESHOLD",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "MODEL.LOAD_PROPOSALS",
    "MODEL.MASK_ON",
    "MODEL.KEYPOINT_ON",
    "TEST.AUG.ENABLED",
    "VIS_PERIOD",
)
# Keys of ours that only a ClsNet uses.
_CLASSIFIER_ONLY = (
    "DATALOADER.BAD_IMAGES",
    "DATASETS.VAL_FRACTION",
    "INPUT.AUGMENTATION",
    "INPUT.RANDOM_ERASING",
    "MODEL.WEIGHTS_PREPROCESSING",
    "SOLVER.BACKBONE_MULTIPLIER",
    "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.EPOCHS",
    "SOLVER.HEAD_ONLY_EPOCHS",
    "SOLVER.STEP_EPOCHS",
    "SOLVER.WARMUP_EPOCHS",
    "TEST.EVAL_EPOCHS",
    "TEST.SAVE_PROBABILITIES",
)
# Besides the top-k accuracies. The loss is none of them, because larger must be better.
_SINGLE_LABEL_METRICS = ("balanced", "precision_macro", "recall_macro", "F1_macro")
_MULTILABEL_METRICS = (
    "mAP",
    "mAP_micro",
    *(f"{name}_{mean}" for mean in ("micro", "macro") for name in ("precision", "recall", "F1")),
    "exact_match",
)


def check_cfg(cfg: CfgNode, resolved: bool = False) -> None:
    """Checks config values; feature names are checked where the backbone is built.

    Args:
        cfg: with the keys of imgcls.
        resolved: whether lengths in epochs have been converted to iterations. Before that, a length in epochs cannot be
            compared with one in iterations.

    Raises:
        ValueError: a value is not allowed; the message has the key, the value, and what is allowed.
    """
    for key, allowed, test in _RULES:
        value = _get(cfg, key)
        if not test(value):
            raise UserError(f"{key} is {value!r}; allowed: {allowed}")
    _check_registered("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY)
    _check_registered("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY)
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        _check_unused(cfg, _UNUSED, detectron2.config.get_cfg())
        _check_warmup(cfg.SOLVER, resolved)
        _check_clsnet(cfg)
    else:
        _check_unused(cfg, _CLASSIFIER_ONLY, get_cfg())


def check_best_metric(cfg: CfgNode) -> None:
    """Checks ``TEST.BEST_METRIC`` against the names that the config's evaluators produce.

    A trainer whose ``build_evaluator`` is overridden should not call this. Without a set in ``DATASETS.TEST``, every
    name passes. Metrics of a detector are checked for the form ``task/metric`` only.

    Raises:
        ValueError: no evaluator produces the metric.
    """
    name, sets = cfg.TEST.BEST_METRIC, list(dict.fromkeys(cfg.DATASETS.TEST))
    if not name or not sets:
        return
    # DefaultTrainer.test adds the names of the sets if there are several.
    prefixes = [f"{dataset}/" for dataset in sets] if len(sets) > 1 else [""]
    if cfg.SOLVER.EMA_DECAY > 0:
        prefixes += [f"ema/{prefix}" for prefix in prefixes]
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        metrics = _list_metrics(cfg)
        allowed, pattern = f"one of {', '.join(metrics)}", "|".join(map(re.escape, metrics))
    else:
        allowed, pattern = "TASK/METRIC, for example bbox/AP", "[^/]+/[^/]+"
    if not any(name.startswith(p) and re.fullmatch(pattern, name.removeprefix(p)) for p in prefixes):
        after = f" after one of {', '.join(filter(None, prefixes))}" if len(sets) > 1 else ""
        ema = ", or ema/ and one of these" if cfg.SOLVER.EMA_DECAY > 0 and not after else ""
        average_is_off = name.startswith("ema/") and cfg.SOLVER.EMA_DECAY == 0
        hint = "; averaged weights need SOLVER.EMA_DECAY above 0" if average_is_off else ""
        if cfg.MODEL.META_ARCHITECTURE == "ClsNet" and name.rpartition("/")[2] == "loss":
            hint += "; not a loss, because the largest value is taken as the best"
        raise UserError(f'TEST.BEST_METRIC is {name!r}; allowed: "", or {allowed}{after}{ema}{hint}')


def _list_metrics(cfg: CfgNode) -> list[str]:
    """Lists the metrics of a ClsNet as ``task/metric``."""
    clsnet = cfg.MODEL.CLSNET
    if clsnet.HEAD == "sigmoid":
        return [f"multilabel/{metric}" for metric in _MULTILABEL_METRICS]
    known = clsnet.NUM_CLASSES if clsnet.NUM_CLASSES != -1 else math.inf
    metrics = [f"top{k}" for k in reported_topk(cfg.TEST.TOPK, known)]
    return [f"accuracy/{metric}" for metric in (*metrics, *_SINGLE_LABEL_METRICS)]


def reported_topk(topk: Sequence[int], num_classes: float) -> list[int]:
    """Which k of ``TEST.TOPK`` are reported, in ascending order.

    From the number of classes on, a top-k accuracy is 100 %. Such a k is left out, unless it is the number of classes
    and no other remains.
    """
    allowed = sorted({k for k in topk if k <= num_classes})
    return [k for k in allowed if k < num_classes] or allowed


def _check_registered(key: str, name: str, registry: Registry) -> None:
    if name not in registry:
        known = [known for known, _ in registry]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{key} is {name!r}; {hint}registered are {', '.join(sorted(known))}")


def _check_unused(cfg: CfgNode, keys: Sequence[str], defaults: CfgNode) -> None:
    for key in keys:
        value, default = _get(cfg, key), _get(defaults, key)
        if value != default:
            model = cfg.MODEL.META_ARCHITECTURE
            raise UserError(f"{key} is {value!r}; allowed: {default!r}, because a {model} does not use this key")


def _check_warmup(solver: CfgNode, resolved: bool) -> None:
    """Refuses a warm-up as long as the run, with which detectron2's schedules keep the learning rate near 0."""
    in_epochs = solver.WARMUP_EPOCHS >= 0, solver.EPOCHS > 0
    keys = "WARMUP_EPOCHS" if in_epochs[0] else "WARMUP_ITERS", "EPOCHS" if in_epochs[1] else "MAX_ITER"
    warmup, whole = (solver[key] for key in keys)
    if resolved:
        too_long = 0 < solver.WARMUP_ITERS >= solver.MAX_ITER
    else:
        too_long = in_epochs[0] == in_epochs[1] and 0 < warmup >= whole
    if too_long:
        counts = f" ({solver.WARMUP_ITERS} of {solver.MAX_ITER} iterations)" if resolved and any(in_epochs) else ""
        raise UserError(f"SOLVER.{keys[0]} is {warmup}; allowed: 0 to below SOLVER.{keys[1]} {whole}{counts}")


def _check_clsnet(cfg: CfgNode) -> None:
    clsnet = cfg.MODEL.CLSNET
    if cfg.INPUT.FORMAT not in FORMATS:
        raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; allowed: one of {list(FORMATS)}")
    classes = clsnet.NUM_CLASSES
    if isinstance(clsnet.POS_WEIGHT, (list, tuple)) and classes != -1 and len(clsnet.POS_WEIGHT) != classes:
        raise UserError(
            f"MODEL.CLSNET.POS_WEIGHT has {len(clsnet.POS_WEIGHT)} values for MODEL.CLSNET.NUM_CLASSES {classes}; "
            'allowed: one value per class, "auto", or None'
        )
    if clsnet.HEAD == "softmax" and classes != -1 and min(cfg.TEST.TOPK) > classes:
        raise UserError(f"TEST.TOPK is {list(cfg.TEST.TOPK)}; allowed: at least one of 1 to {classes}, the class count")
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(cfg.MODEL[key]) != 3:
            came = list(cfg.MODEL[key])
            raise UserError(f"MODEL.{key} is {came}; allowed: three numbers, in the order of INPUT.FORMAT")
    timm = cfg.MODEL.TIMM
    if cfg.MODEL.WEIGHTS_PREPROCESSING == "adopt" and not cfg.MODEL.WEIGHTS and (timm.PRETRAINED or timm.CHECKPOINT):
        raise UserError(
            "MODEL.WEIGHTS_PREPROCESSING is 'adopt', which reads MODEL.WEIGHTS and not timm's weights; allowed: 'check'"
        )
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


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _integer_from(lowest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _range(top: float) -> Callable[[Any], bool]:
    return lambda v: len(v) == 2 and all(map(_above_zero, v)) and v[0] <= v[1] <= top


def _list_of(test: Callable[[Any], bool], empty: bool = False) -> Callable[[Any], bool]:
    return lambda value: (bool(value) or empty) and all(map(test, value))


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("MODEL.MNET.WIDTH_MULT", "a number above 0", _above_zero),
    ("MODEL.MNET.DEPTH_MULT", "a number above 0", _above_zero),
    ("MODEL.MNET.BLOCKS", "[] or whole numbers from 1, one per row", _list_of(_integer_from(1), empty=True)),
    ("MODEL.MNET.STEM_STRIDE", "1 or 2", lambda v: v in (1, 2)),
    ("MODEL.MNET.ACTIVATION", f"one of {list(ACTIVATIONS)}", lambda v: v in ACTIVATIONS),
    ("MODEL.MNET.NORM", f"one of {list(NORMS)}", lambda v: v in NORMS),
    ("MODEL.MNET.BN_EPS", "a number above 0", _above_zero),
    ("MODEL.MNET.BN_MOMENTUM", "a number from 0 to 1", _fraction),
    ("MODEL.BACKBONE.FREEZE_AT", "a whole number from 0", _integer_from(0)),
    (
        "MODEL.CLSNET.NUM_CLASSES",
        "a whole number from 1, or -1 to take it from the data",
        lambda v: v == -1 or _integer_from(1)(v),
    ),
    ("MODEL.CLSNET.INPUT_SIZE", "a whole number of pixels from 1", _integer_from(1)),
    ("MODEL.CLSNET.HEAD", f"one of {list(HEADS)}", lambda v: v in HEADS),
    ("MODEL.CLSNET.HEAD_CONV_DIM", "a whole number from 0", _integer_from(0)),
    ("MODEL.CLSNET.DROPOUT", "a number from 0 to 1", _fraction),
    ("MODEL.CLSNET.LABEL_SMOOTHING", "a number from 0 to 1", _fraction),
    (
        "MODEL.CLSNET.POS_WEIGHT",
        'numbers above 0, one per class, "auto", or None',
        lambda v: v is None or v == "auto" or (isinstance(v, (list, tuple)) and all(map(_above_zero, v))),
    ),
    ("MODEL.WEIGHTS_PREPROCESSING", f"one of {list(PREPROCESSING)}", lambda v: v in PREPROCESSING),
    ("DATASETS.VAL_FRACTION", "a number from 0 to below 1", lambda v: _fraction(v) and v < 1),
    ("MODEL.PIXEL_STD", "numbers above 0, one per channel", _list_of(_above_zero)),
    ("INPUT.RANDOM_FLIP", "'none', 'horizontal' or 'vertical'", lambda v: v in ("none", "horizontal", "vertical")),
    ("INPUT.CROP_PCT", "a number above 0, at most 1", lambda v: _above_zero(v) and v <= 1),
    ("INPUT.CROP_SCALE", "two numbers above 0, in ascending order, at most 1", _range(1)),
    ("INPUT.CROP_RATIO", "two numbers above 0, in ascending order", _range(math.inf)),
    ("INPUT.AUGMENTATION", f"one of {list(AUGMENTATIONS)}", lambda v: v in AUGMENTATIONS),
    ("INPUT.RANDOM_ERASING", "a number from 0 to 1", _fraction),
    ("DATALOADER.BAD_IMAGES", "'error' or 'skip'", lambda v: v in ("error", "skip")),
    ("SOLVER.IMS_PER_BATCH", "a whole number from 1", _integer_from(1)),
    ("SOLVER.EPOCHS", "a whole number from 1, or 0 for SOLVER.MAX_ITER", _integer_from(0)),
    ("SOLVER.WARMUP_EPOCHS", "a whole number from 0, or -1 for SOLVER.WARMUP_ITERS", _integer_from(-1)),
    (
        "SOLVER.STEP_EPOCHS",
        "() for SOLVER.STEPS, or whole numbers from 1 in ascending order",
        lambda v: _list_of(_integer_from(1), empty=True)(v) and list(v) == sorted(v),
    ),
    ("SOLVER.CHECKPOINT_EPOCHS", "a whole number from 1, or 0 for SOLVER.CHECKPOINT_PERIOD", _integer_from(0)),
    ("SOLVER.HEAD_ONLY_EPOCHS", "a whole number from 0", _integer_from(0)),
    ("SOLVER.BACKBONE_MULTIPLIER", "a number above 0", _above_zero),
    ("SOLVER.ACCUM_STEPS", "a whole number from 1", _integer_from(1)),
    ("SOLVER.EMA_DECAY", "a number from 0 to below 1", lambda v: _fraction(v) and v < 1),
    ("SOLVER.KEEP_CHECKPOINTS", "a whole number from 0", _integer_from(0)),
    ("SOLVER.LOG_PERIOD", "a whole number from 1", _integer_from(1)),
    ("SOLVER.AMP.PRECISION", f"one of {list(PRECISIONS)}", lambda v: v in PRECISIONS),
    ("TEST.EVAL_EPOCHS", "a whole number from 1, or 0 for TEST.EVAL_PERIOD", _integer_from(0)),
    ("TEST.PATIENCE", "a whole number from 0", _integer_from(0)),
    ("TEST.TOPK", "whole numbers from 1", _list_of(_integer_from(1))),
    ("TEST.THRESHOLD", "a number from 0 to 1", _fraction),
    (
        "OUTPUT.LOGGERS",
        f"() or names out of {list(LOGGERS)}, each once",
        lambda v: set(v) <= set(LOGGERS) and len(set(v)) == len(v),
    ),
)
