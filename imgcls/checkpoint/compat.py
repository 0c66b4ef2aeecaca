"""What a checkpoint must have in common with the config it is used with: one table of config keys, by effect.

Names and shapes of tensors do not show which activation, epsilon, stride or pixel means the weights were trained with.
Evaluation, fine-tuning, prediction, resuming, hand-off to detectors and conversion all use the table below.
"""

import math
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any

import yaml
from detectron2.config import CfgNode
from torch import nn

from imgcls.config.defaults import get_cfg
from imgcls.config.load import LAST_STAGE
from imgcls.errors import UserError

Settings = Mapping[str, Any]
"""Config values in plain Python types, by their full key (``"MODEL.MNET.BN_EPS"``)."""


class Effect(Enum):
    """What another value of a config key does to trained weights."""

    SHAPE = auto()  # the backbone's tensors have other names or shapes, so loading fails
    OUTER_SHAPE = auto()  # the same for tensors outside the backbone; or other stages of the backbone are built
    PREPROCESSING = auto()  # the network gets other pixel values
    BACKBONE = auto()  # the backbone has the same tensors, but computes something else with them
    NETWORK = auto()  # the same for the choice of the backbone, its FPN and dilation
    CLASSIFIER = auto()  # the same for the head of a classifier
    DETECTOR = auto()  # the same for the heads of a detector
    RUN = auto()  # the state of a run, such as the optimizer's, no longer fits
    COURSE = auto()  # the rest of the training gives other weights
    NOTHING = auto()  # results do not depend on it


# A key, or a node for all keys below it. Any key that is not listed has `Effect.COURSE`.
_TABLE: dict[Effect, tuple[str, ...]] = {
    Effect.SHAPE: (
        "MODEL.MNET.WIDTH_MULT",
        "MODEL.MNET.DEPTH_MULT",
        "MODEL.MNET.BLOCKS",
        "MODEL.RESNETS.DEPTH",
        "MODEL.RESNETS.NUM_GROUPS",
        "MODEL.RESNETS.WIDTH_PER_GROUP",
        "MODEL.RESNETS.RES2_OUT_CHANNELS",
        "MODEL.RESNETS.STEM_OUT_CHANNELS",
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE",
        "MODEL.RESNETS.DEFORM_MODULATED",
        "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    ),
    Effect.OUTER_SHAPE: (
        "MODEL.MNET.OUT_FEATURES",
        "MODEL.TIMM.OUT_FEATURES",
        "MODEL.RESNETS.OUT_FEATURES",
        "MODEL.FPN.IN_FEATURES",
        "MODEL.FPN.OUT_CHANNELS",
        "MODEL.CLSNET.NUM_CLASSES",
        "MODEL.CLSNET.HEAD_CONV_DIM",
    ),
    Effect.PREPROCESSING: ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    Effect.BACKBONE: (
        "MODEL.MNET.ACTIVATION",
        "MODEL.MNET.NORM",
        "MODEL.MNET.BN_EPS",
        "MODEL.MNET.STEM_STRIDE",
        "MODEL.TIMM.NAME",
        "MODEL.RESNETS.NORM",
        "MODEL.RESNETS.STRIDE_IN_1X1",
    ),
    Effect.NETWORK: (
        "MODEL.BACKBONE.NAME",
        "MODEL.FPN.NORM",
        "MODEL.FPN.FUSE_TYPE",
        # Not BACKBONE: detectors may dilate a backbone that was trained without dilation.
        "MODEL.RESNETS.RES5_DILATION",
    ),
    Effect.CLASSIFIER: ("MODEL.CLSNET.HEAD", "MODEL.CLSNET.IN_FEATURES"),
    Effect.DETECTOR: (
        "MODEL.ANCHOR_GENERATOR",
        "MODEL.RPN.IN_FEATURES",
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        "MODEL.RETINANET.IN_FEATURES",
        "MODEL.RETINANET.BBOX_REG_WEIGHTS",
        "MODEL.RETINANET.NORM",
        "MODEL.ROI_HEADS.NAME",
        "MODEL.ROI_HEADS.IN_FEATURES",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
    ),
    Effect.RUN: ("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.FREEZE_AT"),
    Effect.NOTHING: (
        "DATALOADER.NUM_WORKERS",
        "MODEL.CLSNET.ENABLE",
        "MODEL.DEVICE",
        "MODEL.TIMM.CHECKPOINT",  # as MODEL.WEIGHTS: what training started from
        "MODEL.TIMM.PRETRAINED",
        "MODEL.WEIGHTS",
        "MODEL.WEIGHTS_PREPROCESSING",
        "OUTPUT",
        "OUTPUT_DIR",
        "SOLVER.CHECKPOINT_EPOCHS",
        "SOLVER.CHECKPOINT_PERIOD",
        "SOLVER.KEEP_CHECKPOINTS",
        "SOLVER.LOG_PERIOD",
        "TEST.EXPECTED_RESULTS",
        "TEST.SAVE_PROBABILITIES",
        "VERSION",
        "VIS_PERIOD",
    ),
}
_EFFECTS = {key: effect for effect, keys in _TABLE.items() for key in keys}


class Use(Enum):
    """What a checkpoint is used for; the value is the effects that must not differ."""

    # A backbone without its head: hand-off to a detector, or a new head.
    BACKBONE = (Effect.PREPROCESSING, Effect.BACKBONE)
    # A classifier whose linear layer starts new, because it is trained on other classes.
    OTHER_CLASSES = (*BACKBONE, Effect.NETWORK)
    # A whole classifier or detector: evaluation, fine-tuning (of a classifier), prediction, export.
    CLASSIFIER = (*BACKBONE, Effect.NETWORK, Effect.CLASSIFIER)
    DETECTOR = (*BACKBONE, Effect.NETWORK, Effect.DETECTOR)
    # A run that is resumed, of either.
    RESUME = (*CLASSIFIER, Effect.DETECTOR, Effect.RUN)


# Node of the config to a part of the names of the builders that read it. Unknown builders may read any of them.
_READERS = {"MODEL.MNET.": "mnet", "MODEL.TIMM.": "timm", "MODEL.RESNETS.": "resnet", "MODEL.FPN.": "fpn"}
_BACKBONES = ("mnet", "timm", "resnet")
# The convolution of a classifier's head takes these from MODEL.MNET, whatever the backbone.
_HEAD_CONV = ("MODEL.MNET.ACTIVATION", "MODEL.MNET.NORM", "MODEL.MNET.BN_EPS")
# These norms have the same parameters and buffers, and compute the same in evaluation mode.
_BATCH_NORMS = ("BN", "FrozenBN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
_CONTRACT = {"format": "INPUT.FORMAT", "pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}
ABSENT = "(no such key)"  # of another version of imgcls or detectron2


def effect_of(key: str) -> Effect:
    """What another value of a config key does to trained weights."""
    parents = [key]
    while "." in parents[-1]:
        parents.append(parents[-1].rpartition(".")[0])
    return next((_EFFECTS[name] for name in parents if name in _EFFECTS), Effect.COURSE)


def build_contract(cfg: CfgNode) -> dict[str, Any]:
    """The preprocessing that a config asks for, in plain Python types, as it is written into checkpoints.

    ``pixel_mean`` and ``pixel_std`` are on the 0-255 scale, in the channel order of ``format``; ``resize`` is the rule.
    """
    contract = {
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": [float(value) for value in cfg.MODEL.PIXEL_MEAN],
        "pixel_std": [float(value) for value in cfg.MODEL.PIXEL_STD],
        "value_range": [0, 255],
        "resize": "bilinear, antialiased",
    }
    if "CLSNET" in cfg.MODEL:  # a detector's config may lack the keys of imgcls
        contract |= {"input_size": cfg.MODEL.CLSNET.INPUT_SIZE, "crop_pct": cfg.INPUT.CROP_PCT}
    return contract


def build_expected(cfg: CfgNode) -> Settings:
    """The settings of a config, which those in a checkpoint are compared with."""
    return _flatten(yaml.safe_load(cfg.dump()))


def read_settings(info: Mapping[str, Any]) -> Settings:
    """The settings in the ``"imgcls"`` entry of a checkpoint; the preprocessing contract overrides the config text."""
    return _flatten(yaml.safe_load(info["cfg"]) or {}) | _from_contract(info.get("preprocessing", {}))


def read_model_settings(model: nn.Module) -> Settings:
    """The preprocessing that a model itself carries: detectron2's models keep means, deviations and channel order."""
    contract = {
        name: getattr(model, name).flatten().tolist() for name in ("pixel_mean", "pixel_std") if hasattr(model, name)
    }
    if getattr(model, "input_format", None):
        contract["format"] = model.input_format
    return _from_contract(contract)


def check_contract(saved: Mapping[str, Any], current: Mapping[str, Any], source: str) -> None:
    """Compares two preprocessing contracts (see ``build_contract``) in the entries that both have.

    Raises:
        UserError: as ``check_settings``.
    """
    check_settings(_from_contract(saved), _from_contract(current), source, Use.BACKBONE)


def check_settings(saved: Settings, current: Settings, source: str, use: Use) -> None:
    """Refuses a checkpoint whose tensors would compute something else here than where they were trained.

    A key that one side lacks, because it was written by another version, is not compared. ``saved`` is from
    ``read_settings``, ``current`` from ``build_expected``, and ``source`` is the path of the checkpoint.

    Raises:
        UserError: with both values of each key that differs, and the config lines to set.
    """
    wrong = find_differences(saved, current, use.value, exact=use is Use.RESUME)
    if wrong:
        sides = "; ".join(f"{key} is {saved[key]} in the checkpoint, {current[key]} in the config" for key in wrong)
        prefix, verb = ("--resume: ", "resume") if use is Use.RESUME else ("", "use")
        raise UserError(f"{prefix}{source} does not fit the config: {sides}; to {verb} it set {_lines(saved, wrong)}")


def find_differences(saved: Settings, current: Settings, effects: Iterable[Effect], exact: bool = False) -> list[str]:
    """The keys with one of ``effects`` that differ; those that only one side has or uses are not compared.

    With ``exact``, batch norms that only differ in training (BN, SyncBN, ...) count as different, too.
    """
    effects = frozenset(effects)
    keys = [key for key in sorted(saved) if key in current and effect_of(key) in effects]
    used = [key for key in keys if _is_used(key, saved, effects) and _is_used(key, current, effects)]
    return [key for key in used if not _same(_reduce(key, saved[key], exact), _reduce(key, current[key], exact))]


def advise(saved: Settings, current: Settings, use: Use) -> str:
    """What to change in the config when tensors have other names or shapes, for the end of a message."""
    shapes = {Effect.SHAPE} if use is Use.BACKBONE else {Effect.SHAPE, Effect.OUTER_SHAPE}
    wrong = find_differences(saved, current, shapes.union(use.value))
    if use is Use.OTHER_CLASSES:
        wrong = [key for key in wrong if key != "MODEL.CLSNET.NUM_CLASSES"]
    if wrong:
        other_classes = use is Use.CLASSIFIER and "MODEL.CLSNET.NUM_CLASSES" in wrong
        training = "; to train on other classes, start a training from it" if other_classes else ""
        return f"to use it set {_lines(saved, wrong)}{training}"
    builder = saved.get("MODEL.BACKBONE.NAME", "")
    hint = f" ({builder} in the checkpoint)" if builder else ""
    return f"check MODEL.BACKBONE.NAME{hint}, MODEL.MNET.WIDTH_MULT, DEPTH_MULT, BLOCKS and OUT_FEATURES"


def changed_keys(saved: Settings, current: Settings) -> dict[str, tuple[Any, Any]]:
    """The keys that differ and affect the result of a run, with saved and current value; ``ABSENT`` for no value.

    A key of this version that an older one lacked is left out if it has its default, with which nothing changes.
    """
    before = {**build_expected(get_cfg()), **saved}
    pairs = {key: (before.get(key, ABSENT), current.get(key, ABSENT)) for key in sorted({*saved, *current})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and effect_of(key) is not Effect.NOTHING}


def _is_used(key: str, settings: Settings, effects: frozenset[Effect]) -> bool:
    """Whether the network of a config reads a key at all."""
    if key in _HEAD_CONV and Effect.CLASSIFIER in effects and settings.get("MODEL.CLSNET.HEAD_CONV_DIM"):
        return True
    part = next((part for node, part in _READERS.items() if key.startswith(node)), "")
    builder = settings.get("MODEL.BACKBONE.NAME", "")
    return part in builder or not any(known in builder for known in _BACKBONES)


def _reduce(key: str, value: Any, exact: bool) -> Any:
    """Maps values that mean the same for the weights to one value."""
    if key == "MODEL.TIMM.NAME":  # what follows the dot is which weights timm would load
        return value.partition(".")[0]
    if key == "MODEL.CLSNET.IN_FEATURES":
        return [LAST_STAGE if name == "linear" else name for name in value]
    if key.endswith(".NORM") and not exact and value in _BATCH_NORMS:
        return "BN"
    return value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        # The buffers of a model are float32, without some of the digits in the config.
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _lines(saved: Settings, keys: Iterable[str]) -> str:
    return " ".join(f'{key} "{saved[key]}"' for key in keys)


def _from_contract(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {key: contract[name] for name, key in _CONTRACT.items() if name in contract}


def _flatten(node: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node} if name else {}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{name}.{key}" if name else str(key))
    return flat
