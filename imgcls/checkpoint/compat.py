"""The preprocessing contract: what an image looks like when it reaches the backbone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import yaml
from detectron2.config import CfgNode
from torch import nn

from imgcls.errors import UserError

# What must be equal for weights to mean the same; size and crop may change from one use to the next.
_COMPARED = {"format": "INPUT.FORMAT", "pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}


def build_contract(cfg: CfgNode) -> dict[str, Any]:
    """What the config says of preprocessing, in plain Python types.

    ``pixel_mean`` and ``pixel_std`` are on the 0-255 scale, in the channel order of ``format``; ``resize`` is the rule.
    """
    contract = {
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": [float(value) for value in cfg.MODEL.PIXEL_MEAN],
        "pixel_std": [float(value) for value in cfg.MODEL.PIXEL_STD],
        "value_range": [0, 255],
        "resize": "bilinear, antialiased",
    }
    if "CLSNET" in cfg.MODEL:  # a detector's config may be without our keys
        contract |= {"input_size": cfg.MODEL.CLSNET.INPUT_SIZE, "crop_pct": cfg.INPUT.CROP_PCT}
    return contract


def read_contract(model: nn.Module) -> dict[str, Any]:
    """What a model says of its preprocessing, as far as it does: detectron2's models keep means and channel order."""
    contract = {
        name: getattr(model, name).flatten().tolist() for name in ("pixel_mean", "pixel_std") if hasattr(model, name)
    }
    if getattr(model, "input_format", None):
        contract["format"] = model.input_format
    return contract


def check_contract(saved: Mapping[str, Any], current: Mapping[str, Any], source: str) -> None:
    """Compares the contract in a checkpoint with the config's, or with as much of it as ``current`` has.

    Raises:
        ValueError: they differ; both sides and the config lines that mend it.
    """
    wrong = [name for name in _COMPARED if name in current and not _same(saved[name], current[name])]
    if wrong:
        sides = "; ".join(f"{_COMPARED[name]} {saved[name]} there, {current[name]} in the config" for name in wrong)
        lines = " ".join(f'{_COMPARED[name]} "{saved[name]}"' for name in wrong)
        raise UserError(f"{source} was trained on other preprocessing: {sides}; to use it set {lines}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return one == other
    # A model's buffers are float32 and have lost digits that the config still has.
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-6, atol=0)


class _Kind(NamedTuple):
    """Keys of ``MODEL.<node>`` that change the tensors, and those that change what the same tensors compute."""

    node: str
    shape: tuple[str, ...]
    function: tuple[str, ...]


# By what is in the name of the builder.
_KINDS = {
    "mnet": _Kind("MNET", ("WIDTH_MULT", "DEPTH_MULT", "BLOCKS"), ("ACTIVATION", "BN_EPS", "STEM_STRIDE")),
    "timm": _Kind("TIMM", (), ("NAME",)),
    "resnet": _Kind("RESNETS", ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS"), ("STRIDE_IN_1X1",)),
}
_SHAPE = {f"MODEL.{kind.node}.{key}" for kind in _KINDS.values() for key in kind.shape}


def build_network(cfg: CfgNode) -> dict[str, Any]:
    """What a config says of its network, by key; empty where the backbone is of no kind that is known."""
    return read_network(cfg.dump())


def read_network(text: str) -> dict[str, Any]:
    """The same from the YAML text of a config, which every checkpoint of ours carries."""
    model = (yaml.safe_load(text) or {}).get("MODEL", {})
    builder = model.get("BACKBONE", {}).get("NAME", "")
    kind = next((kind for part, kind in _KINDS.items() if part in builder), None)
    if not kind:
        return {}
    known = model.get(kind.node, {})
    network = {f"MODEL.{kind.node}.{key}": known[key] for key in (*kind.shape, *kind.function) if key in known}
    if kind.node == "TIMM" and network:  # behind the dot is only which weights timm would have loaded
        network["MODEL.TIMM.NAME"] = network["MODEL.TIMM.NAME"].partition(".")[0]
    return network


def check_network(saved: Mapping[str, Any], current: Mapping[str, Any], source: str) -> None:
    """Refuses a network in which tensors of the same shapes compute something else.

    Raises:
        ValueError: another activation, epsilon, stride, or network of timm; both sides and the config lines that
            mend it.
    """
    wrong = [key for key in _differences(saved, current) if key not in _SHAPE]
    if wrong:
        sides = "; ".join(f"{key} {saved[key]} there, {current[key]} in the config" for key in wrong)
        raise UserError(f"{source} is of another network: {sides}; to use it set {_lines(saved, wrong)}")


def advise(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Which keys to change when tensors have other names or shapes."""
    wrong = _differences(saved, current)
    if wrong:
        return f"to use it set {_lines(saved, wrong)}"
    return "check MODEL.BACKBONE.NAME, MODEL.MNET.WIDTH_MULT, DEPTH_MULT, BLOCKS and OUT_FEATURES"


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    return [key for key in saved if key in current and saved[key] != current[key]]


def _lines(saved: Mapping[str, Any], keys: list[str]) -> str:
    return " ".join(f'{key} "{saved[key]}"' for key in keys)


ABSENT = "(no such key)"  # of another version of imgcls or detectron2

# Where things are and how often they are written: nothing of what is computed depends on them.
_IGNORED = {
    "DATALOADER.NUM_WORKERS",
    "MODEL.CLSNET.ENABLE",
    "MODEL.DEVICE",
    "MODEL.TIMM.PRETRAINED",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.KEEP_CHECKPOINTS",
    "SOLVER.LOG_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "VERSION",
    "VIS_PERIOD",
}

# With another value the saved weights, or the optimizer's state, would mean something else though every shape fits.
_FIXED = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.BACKBONE.NAME",
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.MNET.ACTIVATION",
    "MODEL.MNET.BN_EPS",
    "MODEL.MNET.NORM",
    "MODEL.MNET.STEM_STRIDE",
    "MODEL.CLSNET.HEAD",
    "MODEL.CLSNET.IN_FEATURES",
)


def changed_keys(saved_cfg: str, current_cfg: str) -> dict[str, tuple[Any, Any]]:
    """The keys on which the result of a run depends and that differ between two configs.

    Args:
        saved_cfg: YAML text, as every checkpoint of ours has it.
        current_cfg: YAML text.

    Returns:
        Key to saved and current value, in the order of the alphabet; ``ABSENT`` where a side has no such key.
    """
    saved, current = _flatten(yaml.safe_load(saved_cfg)), _flatten(yaml.safe_load(current_cfg))
    pairs = {key: (saved.get(key, ABSENT), current.get(key, ABSENT)) for key in sorted(saved.keys() | current.keys())}
    return {key: pair for key, pair in pairs.items() if key not in _IGNORED and pair[0] != pair[1]}


def check_fixed(saved_cfg: str, current_cfg: str, source: str) -> None:
    """Refuses to go on from a checkpoint of another network, also where each of its tensors fits.

    Raises:
        ValueError: both sides and the config lines that mend it.
    """
    changed = changed_keys(saved_cfg, current_cfg)
    wrong = {key: changed[key] for key in _FIXED if key in changed and ABSENT not in changed[key]}
    if wrong:
        sides = "; ".join(f"{key} {old} there, {new} in the config" for key, (old, new) in wrong.items())
        lines = " ".join(f'{key} "{old}"' for key, (old, _) in wrong.items())
        raise UserError(f"--resume: {source} is of another network: {sides}; to go on from it set {lines}")


def _flatten(node: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node} if name else {}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{name}.{key}" if name else str(key))
    return flat
