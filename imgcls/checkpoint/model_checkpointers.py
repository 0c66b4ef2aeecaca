"""detectron2's checkpointer for classifiers: safe to load, complete, and strict about what fits."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from imgcls import __version__
from imgcls.checkpoint.backbone import drop_counters, kind_of
from imgcls.checkpoint.checkpointer import RunCheckpointer, require
from imgcls.checkpoint.compat import build_contract, changed_keys, check_contract, check_fixed
from imgcls.checkpoint.files import read_checkpoint
from imgcls.checkpoint.handoff import Expected, check_fit, check_loaded, find_backbone
from imgcls.errors import UserError, UserFileNotFoundError

_logger = logging.getLogger(__name__)


class ClsCheckpointer(RunCheckpointer):
    """Writes ``"imgcls"`` beside detectron2's entries and checks it, and every tensor, when a file is loaded.

    Args:
        model: a ``ClsNet``, wrapped for distributed training or not.
        save_dir: the run's folder.
        info: see ``build_info``.
        keep: see ``RunCheckpointer``.
        checkpointables: what else has a state, by its name in the file.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, info: dict[str, Any], keep: int = 0, **checkpointables: Any):
        super().__init__(model, save_dir, keep=keep, **checkpointables)
        self.info = info

    def save(self, name: str, *, tag: bool = True, **entries: Any) -> None:
        super().save(name, tag=tag, imgcls=self.info, **entries)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, not a checkpoint, a pickle, of another architecture or class count, or trained
                on other preprocessing.
        """
        if path and "://" not in path and not os.path.isfile(path):
            raise UserFileNotFoundError(f"MODEL.WEIGHTS {path}: no such checkpoint")
        return super().load(path, *args, **kwargs)

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        require(checkpoint, ["imgcls"], path)
        super()._check_resumable(checkpoint, path)
        saved, current = checkpoint["imgcls"]["cfg"], self.info["cfg"]
        check_fixed(saved, current, path)
        changed = "; ".join(f"{key} {old} is now {new}" for key, (old, new) in changed_keys(saved, current).items())
        if changed and self.checkpointables:  # evaluation may do as it likes
            _logger.warning(
                "%s was saved with other settings: %s; the run goes on with the new ones, and its end will not be "
                "bit-identical to that of an uninterrupted run",
                path,
                changed,
            )

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename)
        if kind_of(checkpoint["model"]) == "detector":
            raise UserError(f"{self.source} is a detector's checkpoint; a ClsNet takes a classifier's or a backbone's")
        if "imgcls" in checkpoint:
            check_contract(checkpoint["imgcls"]["preprocessing"], self.info["preprocessing"], self.source)
            if _has_head(checkpoint):
                self._check_classes(checkpoint["imgcls"]["classes"])
        return checkpoint

    def _check_classes(self, saved: list[str]) -> None:
        """The same number of other classes, or the same in another order, would fit and be wrong."""
        current = self.info["classes"]
        wrong = [index for index, pair in enumerate(zip(saved, current, strict=False)) if pair[0] != pair[1]]
        if wrong and len(saved) == len(current):
            first = wrong[0]
            raise UserError(
                f"{self.source} was trained on other classes than those of {self.info['train']}: class {first} is "
                f"{saved[first]!r} there and {current[first]!r} here ({len(wrong)} differ); "
                "set DATASETS.TRAIN to a set with the same classes"
            )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        has_head = _has_head(checkpoint)
        incompatible = super()._load_model(checkpoint)
        shapes = {key for key, _, _ in incompatible.incorrect_shapes}  # fvcore calls these missing, too
        missing = [key for key in drop_counters(incompatible.missing_keys) if key not in shapes]
        if not has_head:  # a backbone checkpoint: the head stays as it was initialised
            missing = [key for key in missing if not key.startswith("head.")]
        wrong = [f"{key} has shape {found}, the model {wanted}" for key, found, wanted in incompatible.incorrect_shapes]
        wrong += [f"{key} is missing" for key in missing]
        wrong += [f"{key} is unknown" for key in drop_counters(incompatible.unexpected_keys)]
        if wrong:
            raise UserError(
                f"{self.source} does not fit the model ({len(wrong)} tensors): {'; '.join(wrong[:3])}"
                f"{'; ...' if len(wrong) > 3 else ''}; {_advice(wrong)}"
            )
        return incompatible


def build_info(cfg: CfgNode) -> dict[str, Any]:
    """What a classification checkpoint says of itself, in plain Python types."""
    train = cfg.DATASETS.TRAIN
    return {
        "version": __version__,
        "cfg": cfg.dump(),
        "train": train[0] if train else "",
        "classes": list(MetadataCatalog.get(train[0]).get("classes", ())) if train else [],
        "preprocessing": build_contract(cfg),
        "thresholds": {"score": cfg.TEST.THRESHOLD},
    }


def _has_head(checkpoint: dict[str, Any]) -> bool:
    """Whether it is a whole classifier, or a backbone alone."""
    return kind_of(checkpoint["model"]) == "classifier"


def _advice(wrong: list[str]) -> str:
    if all(line.startswith("head.") for line in wrong):
        return "check MODEL.CLSNET.NUM_CLASSES and MODEL.CLSNET.HEAD_CONV_DIM"
    return "check MODEL.BACKBONE.NAME and MODEL.MNET.WIDTH_MULT, DEPTH_MULT, BLOCKS"


class DetectorCheckpointer(RunCheckpointer):
    """Checks a backbone checkpoint before it is loaded, and that all of it was; other files are detectron2's matter.

    Args:
        model: a detector, wrapped for distributed training or not.
        save_dir: the run's folder.
        expected: see ``build_expected``; compared with what the file says.
        keep: see ``RunCheckpointer``.
        checkpointables: what else has a state, by its name in the file.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, expected: Expected, keep: int = 0, **checkpointables: Any):
        super().__init__(model, save_dir, keep=keep, **checkpointables)
        self.expected = expected

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, a pickle, a whole classifier, or a backbone that does not fit this detector; of any
                other file, nothing fits the backbone, or a tensor of it has another shape.
        """
        if not path or "://" in path:  # detectron2's model zoo
            return super().load(path, *args, **kwargs)
        checkpoint = read_checkpoint(path)
        if "imgcls" not in checkpoint and kind_of(checkpoint["model"]) != "classifier":
            return super().load(path, *args, **kwargs)
        backbone = find_backbone(self.model)
        check_fit(checkpoint, backbone, self.expected, path)
        rest = super().load(path, *args, **kwargs)
        _logger.info("%s: %s", path, check_loaded(checkpoint, backbone, path).summary())
        return rest

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """detectron2 only warns. Heads of other classes are its matter; a backbone that did not load is not."""
        incompatible = super()._load_model(checkpoint)
        # Convolutions: detectron2 makes up what is missing of a frozen norm.
        backbone = find_backbone(self.model)
        place = next(name for name, module in self.model.named_modules() if module is backbone)
        names = [f"{place}.{key}" for key, tensor in backbone.state_dict().items() if tensor.dim() == 4]
        other = [key for key, *_ in incompatible.incorrect_shapes if key in names]
        if other or (names and set(names) <= set(incompatible.missing_keys)):
            what = f"{len(other)} of {len(names)} convolutions have another shape" if other else "it has none of it"
            raise UserError(
                f"{self.source} does not fit the model's backbone: {what}; check MODEL.BACKBONE.NAME and MODEL.MNET, "
                "or convert weights of another project with tools/convert_weights.py first"
            )
        return incompatible
