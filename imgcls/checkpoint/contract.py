"""The preprocessing contract: what a picture looks like when it reaches the backbone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
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
