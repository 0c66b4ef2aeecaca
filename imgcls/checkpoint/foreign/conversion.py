"""A state dict of another project to a classification checkpoint of ours, all of it or nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from imgcls import __version__
from imgcls.checkpoint.compat import build_contract
from imgcls.checkpoint.foreign.recipe import Recipe
from imgcls.checkpoint.foreign.sources import read_2020_project, read_timm, read_torchvision
from imgcls.config import get_cfg
from imgcls.errors import UserError

_READERS = {"timm": read_timm, "torchvision": read_torchvision, "upstream": read_2020_project}
SOURCES = tuple(_READERS)


def convert(source: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The classification checkpoint that computes the same as the source's network on the same images.

    Args:
        source: one of ``SOURCES``.
        checkpoint: as ``read_checkpoint`` gives it; names may have DDP's ``"module."`` before them.

    Returns:
        ``{"model": ..., "imgcls": ...}``. The config in it is the lines that build the network, ``ClsNet`` with 0-255
        input; the preprocessing contract is the source's.

    Raises:
        ValueError: an unknown source; a tensor is missing, left over or of another shape.
    """
    if source not in _READERS:
        raise UserError(f"source is {source!r}; allowed: {', '.join(SOURCES)}")
    prefix = "module." if all(name.startswith("module.") for name in checkpoint["model"]) else ""
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["model"].items()
        if not name.endswith("num_batches_tracked")  # nothing is computed from BN's counter
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
    """The tensors of the network that a config builds, without memory for them."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        state = build_model(cfg).state_dict()
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _rename(state: Mapping[str, Tensor], recipe: Recipe, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    modules = {ours: there for there, ours in recipe.modules.items()}
    names = {}  # theirs to ours
    for ours in shapes:
        module, _, leaf = ours.rpartition(".")
        names[f"{modules[module]}.{leaf}"] = ours
    missing = [there for there in names if there not in state]
    unknown = [there for there in state if there not in names and there not in recipe.beside]
    other = [
        f"{there} {tuple(state[there].shape)} instead of {tuple(shapes[ours])}"
        for there, ours in names.items()
        if there in state and state[there].shape != shapes[ours]
    ]
    if missing or unknown or other:
        sides = [_count(missing, "missing"), _count(unknown, "unknown"), _count(other, "of another shape")]
        raise UserError(f"not {recipe.expected}: {'; '.join(filter(None, sides))}")
    return {ours: state[there] for there, ours in names.items()}


def _count(names: Sequence[str], what: str) -> str:
    """``2 missing (a, b)``, or nothing."""
    listed = ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])])
    return f"{len(names)} {what} ({listed})" if names else ""
