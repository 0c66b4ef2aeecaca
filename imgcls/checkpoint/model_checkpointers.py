"""Checkpointers of classifiers and detectors, which refuse a file that does not fit the model or its config."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from imgcls import __version__
from imgcls.checkpoint.backbone import drop_counters, kind_of
from imgcls.checkpoint.checkpointer import RunCheckpointer, require
from imgcls.checkpoint.compat import Settings, Use, advise, build_contract, changed_keys, check_settings, read_settings
from imgcls.checkpoint.handoff import check_fit, check_loaded, find_backbone
from imgcls.errors import UserError

_LINEAR = ("head.linear.weight", "head.linear.bias")
_logger = logging.getLogger(__name__)


class _SettingsCheckpointer(RunCheckpointer):
    """Writes the settings of a run into every file, and compares those of the files that it reads with the config.

    Args:
        model: wrapped for distributed training or not.
        save_dir: the run's folder.
        info: the ``"imgcls"`` entry of what is saved, see ``build_info`` and ``build_detector_info``.
        expected: the settings that files are compared with, see ``build_expected``; by default those in ``info``.
        others: see ``RunCheckpointer``.
    """

    def __init__(
        self, model: nn.Module, save_dir: str, *, info: dict[str, Any], expected: Settings | None = None, **others: Any
    ):
        super().__init__(model, save_dir, **others)
        self.info = info
        self.expected = read_settings(info) if expected is None else expected
        self._resumed = ""

    def save(self, name: str, *, tag: bool = True, **entries: Any) -> None:
        """Adds ``"imgcls"`` to the entries; otherwise as ``RunCheckpointer.save``."""
        super().save(name, tag=tag, imgcls=self.info, **entries)

    @property
    def _must_be_whole(self) -> bool:
        """Whether no tensor may keep its initial value: for evaluation, prediction and resuming."""
        return not self.checkpointables or self.source == self._resumed

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            checkpoint = super()._load_file(filename)
        except UserError as error:
            if filename == self.source:
                raise
            # ``filename`` is in the cache of downloads; the user knows only the URL.
            raise UserError(f"MODEL.WEIGHTS {self.source}: {error}") from error
        self._check(checkpoint)
        return checkpoint

    def _check(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuses a file before anything is loaded from it."""
        raise NotImplementedError

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        super()._check_resumable(checkpoint, path)
        self._resumed = path
        if not self.checkpointables or "imgcls" not in checkpoint:
            return
        saved = read_settings(checkpoint["imgcls"])
        check_settings(saved, self.expected, path, Use.RESUME)
        changed = changed_keys(saved, self.expected)
        if changed:
            _logger.warning(
                "%s was saved with other settings: %s; the run continues with the new ones and will not end "
                "bit-identical to an uninterrupted run",
                path,
                "; ".join(f"{key} was {old} and is now {new}" for key, (old, new) in changed.items()),
            )


class ClsCheckpointer(_SettingsCheckpointer):
    """Writes and reads checkpoints of a ``ClsNet``; class names and every tensor are checked on reading.

    A training may start from a classifier of other classes: those with the same name keep their place in the head if
    all names are the same, and otherwise the linear layer of the head starts new.
    """

    # What to do with the rows of the linear layer in the file that is being read: None keeps them as they are, an empty
    # list leaves them out, and another list has the row of each class.
    _rows: list[int] | None = None

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        require(checkpoint, ["imgcls"], path)
        super()._check_resumable(checkpoint, path)

    def _check(self, checkpoint: Mapping[str, Any]) -> None:
        self._rows = None
        kind, info = kind_of(checkpoint), checkpoint.get("imgcls")
        if kind == "detector":
            raise UserError(f"{self.source} is a detector's checkpoint; a ClsNet takes a classifier's or a backbone's")
        if info is None:
            _logger.warning(
                "%s has no 'imgcls' entry: whether its preprocessing, activation and class names are those of the "
                "config cannot be checked",
                self.source,
            )
            return
        use = Use.BACKBONE
        if kind == "classifier":
            use = Use.CLASSIFIER
            if self._must_be_whole:
                self._check_classes(info["classes"])
            else:
                self._rows = self._match_classes(info["classes"])
                use = Use.OTHER_CLASSES if self._rows == [] else use
        check_settings(read_settings(info), self.expected, self.source, use)

    def _match_classes(self, saved: Sequence[str]) -> list[int] | None:
        """What a training does with the head of a classifier of these classes; see ``_rows``."""
        current = self.info["classes"]
        if list(saved) == list(current):
            return None
        if sorted(saved) == sorted(current):
            _logger.info("%s has the same %d classes in another order; matched by name", self.source, len(saved))
            return [saved.index(name) for name in current]
        _logger.info(
            "%s was trained on %d classes, and the data has %d other ones: the linear layer of the head starts new",
            self.source, len(saved), len(current),
        )  # fmt: skip
        return []

    def _check_classes(self, saved: Sequence[str]) -> None:
        """Refuses other names or another order of as many classes: the tensors would fit, but with wrong labels."""
        current = self.info["classes"]
        wrong = [index for index, (old, new) in enumerate(zip(saved, current, strict=False)) if old != new]
        if wrong and len(saved) == len(current):
            first = wrong[0]
            raise UserError(
                f"{self.source} was trained on other classes than those of {self.info['train']}: class {first} is "
                f"{saved[first]!r} in the checkpoint and {current[first]!r} in the data ({len(wrong)} differ); "
                "set DATASETS.TRAIN to a set with the same classes"
            )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        has_head = kind_of(checkpoint) == "classifier"
        if self._rows is not None:
            tensors = checkpoint["model"].items()
            checkpoint["model"] = {
                key: tensor[self._rows] if key.endswith(_LINEAR) else tensor
                for key, tensor in tensors
                if self._rows or not key.endswith(_LINEAR)
            }
        incompatible = super()._load_model(checkpoint)
        shapes = {key for key, *_ in incompatible.incorrect_shapes}  # fvcore counts these as missing, too
        missing = [key for key in drop_counters(incompatible.missing_keys) if key not in shapes]
        if not has_head:  # a backbone checkpoint: the head keeps its initial values
            missing = [key for key in missing if not key.startswith("head.")]
        if self._rows == []:
            missing = [key for key in missing if not key.endswith(_LINEAR)]
            incompatible = incompatible._replace(missing_keys=missing)  # one line has said that these start new
        wrong = [f"{key} has shape {found}, the model {wanted}" for key, found, wanted in incompatible.incorrect_shapes]
        wrong += [f"{key} is missing" for key in missing]
        wrong += [f"{key} is unknown" for key in drop_counters(incompatible.unexpected_keys)]
        if wrong:
            info = checkpoint.get("imgcls")
            if info or not all(line.startswith("head.") for line in wrong):
                use = Use.OTHER_CLASSES if self._rows == [] else Use.CLASSIFIER if has_head else Use.BACKBONE
                advice = advise(read_settings(info) if info else {}, self.expected, use)
            else:
                advice = "check MODEL.CLSNET.NUM_CLASSES and MODEL.CLSNET.HEAD_CONV_DIM"
            raise UserError(
                f"{self.source} does not fit the model ({len(wrong)} tensors): {'; '.join(wrong[:3])}"
                f"{'; ...' if len(wrong) > 3 else ''}; {advice}"
            )
        if not has_head and self._must_be_whole:
            raise UserError(
                f"{self.source} has a backbone but no head, and a head with random weights would be scored; "
                "train a classifier on it first, or set MODEL.WEIGHTS to a classifier's checkpoint"
            )
        return incompatible


def build_info(cfg: CfgNode, classes: Sequence[str]) -> dict[str, Any]:
    """The ``"imgcls"`` entry of a classifier's checkpoint, in plain Python types; ``classes`` are in label order.

    Raises:
        UserError: there are no classes.
    """
    train = cfg.DATASETS.TRAIN
    if not classes:
        raise UserError(
            f"the classes of DATASETS.TRAIN {tuple(train)} are not known, and a checkpoint needs their names; "
            "set DATASETS.TRAIN to a set that names its classes"
        )
    return {
        "version": __version__,
        "cfg": cfg.dump(),
        "train": train[0] if train else "",
        "classes": list(classes),
        "preprocessing": build_contract(cfg),
        "thresholds": {"score": cfg.TEST.THRESHOLD},
    }


class DetectorCheckpointer(_SettingsCheckpointer):
    """Writes and reads checkpoints of a detector; a backbone that did not load is an error."""

    def _check(self, checkpoint: Mapping[str, Any]) -> None:
        kind, ours = kind_of(checkpoint), "imgcls" in checkpoint
        if kind == "detector" and ours:
            use = Use.DETECTOR if self._must_be_whole else Use.BACKBONE
            check_settings(read_settings(checkpoint["imgcls"]), self.expected, self.source, use)
        elif kind == "classifier" or ours:
            check_fit(checkpoint, find_backbone(self.model), self.expected, self.source)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Turns detectron2's warnings into errors where the model would be left with random weights.

        detectron2 only warns; that is fine for heads that are to be trained, but a backbone that failed to load is an
        error, and so is any tensor that failed to load if the detector is evaluated or its run resumed.
        """
        is_handoff = kind_of(checkpoint) == "backbone" and "imgcls" in checkpoint
        tensors = checkpoint["model"]
        incompatible = super()._load_model(checkpoint)
        backbone = find_backbone(self.model)
        if is_handoff:
            _logger.info("%s: %s", self.source, check_loaded(tensors, backbone, self.source).summary())
        else:
            self._check_backbone(incompatible, backbone)
        lost = {key for key, *_ in incompatible.incorrect_shapes} | {*drop_counters(incompatible.missing_keys)}
        if lost and self._must_be_whole:
            raise UserError(
                f"{self.source} does not fit the model: {len(lost)} tensors are missing or have another shape "
                f"({', '.join(sorted(lost)[:3])}{', ...' if len(lost) > 3 else ''}), and the detector would run with "
                "random ones; give a checkpoint of this detector, or set the config back to the checkpoint's"
            )
        return incompatible

    def _check_backbone(self, incompatible: Any, backbone: nn.Module) -> None:
        prefix = next(name for name, module in self.model.named_modules() if module is backbone)
        # Only convolutions (4-d weights): detectron2 fills in the missing tensors of a frozen norm.
        names = {f"{prefix}.{key}" for key, tensor in backbone.state_dict().items() if tensor.dim() == 4}
        other = [key for key, *_ in incompatible.incorrect_shapes if key in names]
        if other or (names and names <= set(incompatible.missing_keys)):
            what = f"{len(other)} of {len(names)} convolutions have another shape" if other else "it has none of it"
            raise UserError(
                f"{self.source} does not fit the model's backbone: {what}; check MODEL.BACKBONE.NAME and MODEL.MNET, "
                "or convert weights of another project with tools/convert_weights.py first"
            )


def build_detector_info(cfg: CfgNode) -> dict[str, Any]:
    """The ``"imgcls"`` entry of a detector's checkpoint, in plain Python types."""
    return {"version": __version__, "kind": "detector", "cfg": cfg.dump(), "preprocessing": build_contract(cfg)}
