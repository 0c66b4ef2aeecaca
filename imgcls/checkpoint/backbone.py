"""Tells what kind of network a checkpoint holds, and extracts the backbone of a classifier's checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign import convert, is_2020_project
from imgcls.errors import UserError

# How detectors name their tensors. A classifier's are "backbone.stages..." or similar, and "head.linear...".
_DETECTOR = ("backbone.bottom_up.", "backbone.fpn_", "proposal_generator.", "roi_heads.", "head.cls_s", "head.bbox_")


def kind_of(checkpoint: Mapping[str, Any]) -> str:
    """Returns ``"detector"``, ``"classifier"`` or ``"backbone"``, judged by the ``"imgcls"`` entry or tensor names."""
    if checkpoint.get("imgcls", {}).get("kind") == "detector":
        return "detector"
    names = list(unwrap(checkpoint["model"]))
    if any(name.startswith("head.linear.") for name in names):  # even if its backbone has an FPN
        return "classifier"
    return "detector" if any(name.startswith(_DETECTOR) for name in names) else "backbone"


def drop_counters(names: Iterable[str]) -> list[str]:
    """Leaves out batch norm's ``num_batches_tracked``: no output depends on it, and FrozenBN lacks it."""
    return [name for name in names if not name.endswith("num_batches_tracked")]


def extract_backbone(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Makes a backbone checkpoint from a classifier's, as ``read_checkpoint`` returns it; ``source`` is its path.

    Takes the averaged weights if the checkpoint has them (``"ema"``). Names may have DDP's ``"module."`` prefix, and
    checkpoints of the 2020 project are converted.

    Returns:
        ``{"model": tensors without "backbone.", "__author__": "imgcls", "matching_heuristics": True, "imgcls": ...}``;
        the third entry makes detectron2's checkpointer match names by their ends, in any model.

    Raises:
        UserError: the checkpoint is a detector's or a backbone's, or does not contain its preprocessing.
    """
    if is_2020_project(checkpoint["model"]):
        try:
            checkpoint = convert("upstream", checkpoint)
        except UserError as error:
            raise UserError(f"{source} is {error}") from error
    if kind_of(checkpoint) == "detector":
        raise UserError(f"{source} is a detector's checkpoint; give a classifier's, as train_net_builtin.py writes it")
    if "imgcls" not in checkpoint:
        raise UserError(
            f"{source} does not say what images it was trained on (no 'imgcls' entry): give a checkpoint of "
            "train_net_builtin.py, or convert public weights with tools/convert_weights.py first"
        )
    state = unwrap(checkpoint.get("ema") or checkpoint["model"])
    prefix = "backbone."
    tensors = {name[len(prefix) :]: state[name] for name in drop_counters(state) if name.startswith(prefix)}
    if not tensors:
        raise UserError(
            f"{source} has no tensor under 'backbone.': it is already a backbone checkpoint, or not a classifier's"
        )
    return {"model": tensors, "__author__": "imgcls", "matching_heuristics": True, "imgcls": checkpoint["imgcls"]}


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the ``"module."`` prefixes of DDP and ``AveragedModel``, and the counter of the latter."""
    prefix = "module."
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    while state and all(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state
