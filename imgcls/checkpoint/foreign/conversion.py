"""Converts a state dict of another project to a classification checkpoint, with every tensor accounted for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from imgcls import __version__
from imgcls.checkpoint.compat import build_contract
from imgcls.checkpoint.foreign.sources import Recipe, read_2020_project, read_timm, read_torchvision
from imgcls.config import get_cfg
from imgcls.errors import UserError

_READERS = {"timm": read_timm, "torchvision": read_torchvision, "upstream": read_2020_project}
SOURCES = tuple(_READERS)


def convert(source: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a classification checkpoint that computes the same as the source network on the same images.

    ``source`` is one of ``SOURCES``. The names in the file may start with DDP's ``"module."``.

    Returns:
        ``{"model": ..., "imgcls": ...}``. Its config has the keys that build the network, a ``ClsNet`` with 0-255
        input; its preprocessing contract is that of the source.

    Raises:
        UserError: the source is unknown, or a tensor is missing, unknown or of another shape.
    """
    if source not in _READERS:
        raise UserError(f"source is {source!r}; allowed: {', '.join(SOURCES)}")
    prefix = "module." if all(name.startswith("module.") for name in checkpoint["model"]) else ""
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["model"].items()
        if not name.endswith("num_batches_tracked")  # BN's counter does not affect the output
    }
    recipe = _READERS[source](state, checkpoint)
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(recipe.config())))
    return {
        "model": _rename(state, recipe, _shapes(cfg)),
        "imgcls": {
            "version": __version__,
            "cfg": recipe.config(),
            "train": "",
            "classes": [],
            "preprocessing": build_contract(cfg) | {"resize": recipe.resize},
            "thresholds": {},
        },
    }


def _shapes(cfg: CfgNode) -> dict[str, torch.Size]:
    """Returns the shapes of the network that a config builds, on the meta device, which needs no memory."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        state = build_model(cfg).state_dict()
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _rename(state: Mapping[str, Tensor], recipe: Recipe, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    modules = {ours: theirs for theirs, ours in recipe.modules.items()}
    names = {}  # source name to our name
    for ours in shapes:
        module, _, leaf = ours.rpartition(".")
        names[f"{modules[module]}.{leaf}"] = ours
    missing = [theirs for theirs in names if theirs not in state]
    unknown = [theirs for theirs in state if theirs not in names and theirs not in recipe.extra]
    other = [
        f"{theirs} {tuple(state[theirs].shape)} instead of {tuple(shapes[ours])}"
        for theirs, ours in names.items()
        if theirs in state and state[theirs].shape != shapes[ours]
    ]
    if missing or unknown or other:
        sides = [_count(missing, "missing"), _count(unknown, "unknown"), _count(other, "of another shape")]
        raise UserError(f"not {recipe.expected}: {'; '.join(filter(None, sides))}")
    return {ours: state[theirs] for theirs, ours in names.items()}


def _count(names: Sequence[str], what: str) -> str:
    """Returns for example ``2 missing (a, b)``, or ``""`` for no names."""
    listed = ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])])
    return f"{len(names)} {what} ({listed})" if names else ""
