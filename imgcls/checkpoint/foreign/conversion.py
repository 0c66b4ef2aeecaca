"""Converts a state dict of another project to a checkpoint of imgcls, with every tensor accounted for."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from imgcls import __version__
from imgcls.checkpoint.compat import build_contract
from imgcls.checkpoint.foreign.efficientnet import read_efficientnet_lite0
from imgcls.checkpoint.foreign.mobilenet_families import read_biubug6, read_marvis, read_pytorchcv
from imgcls.checkpoint.foreign.recipe import Recipe
from imgcls.checkpoint.foreign.sources import read_2020_project, read_timm, read_torchvision
from imgcls.checkpoint.foreign.stated import Stated
from imgcls.config import get_cfg
from imgcls.errors import UserError

_Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Recipe]
# Name of the source: what describes its files, and tensors that only its files have.
_SOURCES: Mapping[str, tuple[_Reader, tuple[str, ...]]] = MappingProxyType(
    {
        "timm": (read_timm, ("blocks.0.0.conv_dw.weight",)),
        "torchvision": (read_torchvision, ("features.0.0.weight",)),
        "upstream": (read_2020_project, ("bottom_up.stem.0.weight",)),
        "biubug6": (read_biubug6, ("stage1.0.0.weight", "body.stage1.0.0.weight")),
        "marvis": (read_marvis, ("model.0.0.weight",)),
        "pytorchcv": (read_pytorchcv, ("features.init_block.conv.weight",)),
        "efficientnet_lite0": (read_efficientnet_lite0, ("_blocks.0._depthwise_conv.weight",)),
    }
)
AUTO = "auto"
SOURCES = (AUTO, *_SOURCES)
_COUNTER = "num_batches_tracked"  # of batch norm; no output depends on it
# Shapes do not depend on these.
_NEUTRAL = Stated(pixel_format="RGB", pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1), activation="relu")


class ForeignWeightsError(UserError):
    """A file whose tensors are not those of the source."""


@dataclass(frozen=True)
class Conversion:
    """A file that fits, and what becomes of each of its tensors.

    Attributes:
        source: one of ``SOURCES`` except ``"auto"``.
        recipe: what the file is.
        tensors: by our names; for a file without classifier those of a backbone, without ``"backbone."``.
        dropped: names of the file's other tensors.
    """

    source: str
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    dropped: Sequence[str]

    def summary(self) -> str:
        """One line: ``137/137 tensors of ... converted``, where the second number counts the network's."""
        count, kind = len(self.tensors), "" if self.recipe.has_head else "backbone "
        groups = Counter(
            f"*.{_COUNTER}" if name.endswith(_COUNTER) else f"{name.partition('.')[0]}.*" if "." in name else name
            for name in self.dropped
        )
        dropped = ", ".join(f"{name} ({number})" if "*" in name else name for name, number in sorted(groups.items()))
        headless = "" if self.recipe.has_head else "; the file has no classifier, so the result is a backbone"
        return (
            f"{count}/{count} {kind}tensors of {self.recipe.origin}, converted"
            f"{f'; dropped: {dropped}' if dropped else ''}{headless}"
        )

    def checkpoint(self, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Returns a checkpoint that computes the same as the source network on the same images.

        Args:
            classes: names in the order of the outputs, if they are known.

        Returns:
            ``{"model": ..., "imgcls": ...}``. Its config has the keys that build the network, a ``ClsNet`` with 0-255
            input; its preprocessing contract is that of the source. A backbone has the entries that
            ``extract_backbone`` adds, too.

        Raises:
            UserError: there are ``classes``, but not one for each output.
        """
        if classes and len(classes) != self.recipe.num_classes:
            outputs = f"{self.recipe.num_classes} outputs" if self.recipe.has_head else "no classifier"
            raise UserError(f"there are names of {len(classes)} classes, and the network has {outputs}")
        backbone = {} if self.recipe.has_head else {"__author__": "imgcls", "matching_heuristics": True}
        return {
            "model": dict(self.tensors),
            **backbone,
            "imgcls": {
                "version": __version__,
                "cfg": self.recipe.config(),
                "train": "",
                "classes": list(classes),
                "preprocessing": build_contract(_read_cfg(self.recipe)) | {"resize": self.recipe.resize},
                "thresholds": {},
            },
        }


def convert(
    source: str, checkpoint: Mapping[str, Any], stated: Stated | None = None, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns what ``plan_conversion(source, checkpoint, stated).checkpoint(classes)`` does."""
    return plan_conversion(source, checkpoint, stated).checkpoint(classes)


def plan_conversion(source: str, checkpoint: Mapping[str, Any], stated: Stated | None = None) -> Conversion:
    """Finds out what a file is, and where each of its tensors goes.

    ``source`` is one of ``SOURCES``; with ``"auto"`` the names of the tensors show it. The names in the file may start
    with DDP's ``"module."``. ``stated`` is what the file cannot say; for timm and torchvision it overrides the
    preprocessing of the projects.

    Raises:
        UserError: the source is unknown; a tensor is missing, unknown or of another shape; or something about the
            preprocessing must be stated.
    """
    if source not in SOURCES:
        raise UserError(f"source is {source!r}; allowed: {', '.join(SOURCES)}")
    prefix = "module." if all(name.startswith("module.") for name in checkpoint["model"]) else ""
    whole = {name.removeprefix(prefix): tensor for name, tensor in checkpoint["model"].items()}
    state = {name: tensor for name, tensor in whole.items() if not name.endswith(_COUNTER)}
    source = _recognise(state) if source == AUTO else source
    recipe = _SOURCES[source][0](state, checkpoint)
    names = _match(state, recipe, _shapes(recipe))
    used = set(names.values())
    return Conversion(
        source=source,
        recipe=recipe.complete(stated or Stated()),
        tensors={ours: state[theirs] for ours, theirs in names.items()},
        dropped=[name for name in whole if name not in used],
    )


def _recognise(state: Mapping[str, Tensor]) -> str:
    """The source whose names the tensors have."""
    for source, (_, signature) in _SOURCES.items():
        if any(name in state for name in signature):
            return source
    if any(name.startswith("backbone.stages.") for name in state):
        raise ForeignWeightsError("already a checkpoint of imgcls, which MODEL.WEIGHTS takes as it is")
    raise ForeignWeightsError(f"{_list(list(state), 'tensors')} of no known source; known are {', '.join(_SOURCES)}")


def _read_cfg(recipe: Recipe) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(recipe.config())))
    return cfg


def _shapes(recipe: Recipe) -> dict[str, torch.Size]:
    """Returns the shapes of the network of a recipe, on the meta device, which needs no memory."""
    cfg = _read_cfg(recipe.complete(_NEUTRAL) if None in vars(recipe).values() else recipe)
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.CLSNET.NUM_CLASSES = max(1, cfg.MODEL.CLSNET.NUM_CLASSES)
    with torch.device("meta"):
        state = build_model(cfg).state_dict()
    names = [name for name in state if recipe.has_head or name.startswith("backbone.")]
    return {name: state[name].shape for name in names if not name.endswith(_COUNTER)}


def _match(state: Mapping[str, Tensor], recipe: Recipe, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
    """Finds the file's name of each of our tensors."""
    modules = {ours: theirs for theirs, ours in recipe.modules.items()}
    names = {}
    for ours in shapes:
        module, _, leaf = ours.rpartition(".")
        names[ours] = f"{modules[module]}.{leaf}"
    wanted = {theirs: shapes[ours] for ours, theirs in names.items()}
    missing = {theirs: shape for theirs, shape in wanted.items() if theirs not in state}
    unknown = {theirs: state[theirs] for theirs in state if theirs not in wanted and not recipe.is_extra(theirs)}
    other = [
        f"{theirs} {tuple(state[theirs].shape)} instead of {tuple(shape)}"
        for theirs, shape in wanted.items()
        if theirs in state and state[theirs].shape != shape
    ]
    if missing or unknown or other:
        sides = [
            _list([f"{name} {tuple(shape)}" for name, shape in missing.items()], "missing"),
            _list([f"{name} {tuple(tensor.shape)}" for name, tensor in unknown.items()], "unknown"),
            _list(other, "of another shape"),
        ]
        fitting = len(wanted) - len(missing) - len(other)
        raise ForeignWeightsError(
            f"not {recipe.expected}: {fitting}/{len(wanted)} tensors fit; {'; '.join(filter(None, sides))}"
        )
    return names if recipe.has_head else {ours.removeprefix("backbone."): theirs for ours, theirs in names.items()}


def _list(names: Sequence[str], what: str) -> str:
    """Returns for example ``2 missing (a (8,), b (8,))``, or ``""`` for no names."""
    listed = ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])])
    return f"{len(names)} {what} ({listed})" if names else ""
