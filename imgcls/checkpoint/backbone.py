"""The backbone in a checkpoint, and the backbone checkpoint that detectron2's own checkpointer can load."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from imgcls.checkpoint.foreign import convert, is_upstream
from imgcls.errors import UserError

# Where a detector has its parts; a classifier has "backbone." and "head.".
_DETECTOR = ("backbone.bottom_up.", "backbone.fpn_", "proposal_generator.", "roi_heads.", "head.cls_s", "head.bbox_")


def kind_of(state: Mapping[str, Tensor]) -> str:
    """What a state dict is by its names: ``"detector"``, ``"classifier"``, or else ``"backbone"``."""
    names = list(unwrap(state))
    if any(name.startswith("head.linear.") for name in names):  # its backbone may have an FPN
        return "classifier"
    return "detector" if any(name.startswith(_DETECTOR) for name in names) else "backbone"


def drop_counters(names: Iterable[str]) -> list[str]:
    """Without BN's batch counter: FrozenBN has none, and nothing is computed from it."""
    return [name for name in names if not name.endswith("num_batches_tracked")]


def extract_backbone(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The backbone checkpoint that is in a classification checkpoint.

    Takes the moving average of the weights where there is one (``"ema"``), names with and without DDP's
    ``"module."``, and files of the 2020 project.

    Args:
        checkpoint: as ``read_checkpoint`` gives it.
        source: its path, for messages.

    Returns:
        ``{"model": tensors without "backbone.", "__author__": "imgcls", "matching_heuristics": True, "imgcls": ...}``;
        the first three are what detectron2's checkpointer needs to find their places in any model.

    Raises:
        ValueError: a detector's checkpoint, a backbone alone, or one that does not say what images it was trained on.
    """
    if is_upstream(checkpoint["model"]):
        try:
            checkpoint = convert("upstream", checkpoint)
        except UserError as error:
            raise UserError(f"{source} is {error}") from error
    state = unwrap(checkpoint.get("ema") or checkpoint["model"])
    kind = kind_of(state)
    if kind == "detector":
        raise UserError(f"{source} is a detector's checkpoint; give a classifier's, as train_net_builtin.py writes it")
    if "imgcls" not in checkpoint:
        raise UserError(
            f"{source} does not say what images it was trained on (no 'imgcls' entry): give a checkpoint of "
            "train_net_builtin.py, or convert public weights with tools/convert_weights.py first"
        )
    prefix = "backbone."
    tensors = {name[len(prefix) :]: state[name] for name in drop_counters(state) if name.startswith(prefix)}
    if not tensors:
        raise UserError(
            f"{source} has no tensor under 'backbone.': it is a backbone checkpoint already, or no classifier"
        )
    return {
        "model": tensors,
        "__author__": "imgcls",
        "matching_heuristics": True,
        "imgcls": checkpoint["imgcls"],
    }


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the ``"module."`` of DDP and ``AveragedModel`` before each name, and without the latter's counter."""
    prefix = "module."
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    while state and all(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state
