"""What prediction needs from a trained network, and the classifier that reads a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from imgcls import __version__
from imgcls.checkpoint.backbone import drop_counters, kind_of, unwrap
from imgcls.checkpoint.files import read_checkpoint
from imgcls.config.defaults import get_cfg
from imgcls.errors import UserError
from imgcls.modeling.clsnet import ClsNet

# Config nodes that decide what a classifier computes: an unknown key in them may change the function of the weights.
_FUNCTION = ("MODEL.MNET.", "MODEL.CLSNET.", "MODEL.TIMM.")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierInfo:
    """Everything that a prediction needs besides the network.

    Attributes:
        classes: K names in the order of the outputs.
        multi_label: whether the probabilities are independent (sigmoid head).
        thresholds: one for each class: it is predicted where its probability is above it. Multi-label only, else None.
        temperature: the logits were divided by it; 1.0 leaves them as they are.
        contract: the preprocessing contract as stored in checkpoints, see ``checkpoint.compat.build_contract``.
        input_size: side S of the network's input in pixels.
        crop_pct: share of the short side that is kept, see ``data.crop.EvalCrop``.
        source: the path that messages show.
        device: where the network runs, such as ``"cpu"``.
        topk: each k whose accuracy evaluation reports for a softmax head (``TEST.TOPK``).
        threshold: above which evaluation counts a class as predicted by a sigmoid head (``TEST.THRESHOLD``).
        resize_inside: whether the network takes whole images of any size, and resizes and crops them itself.
    """

    classes: list[str]
    multi_label: bool
    thresholds: list[float] | None
    temperature: float
    contract: dict[str, Any]
    input_size: int
    crop_pct: float
    source: str
    device: str
    topk: tuple[int, ...] = (1, 5)
    threshold: float = 0.5
    resize_inside: bool = False


class Classifier(Protocol):
    """A trained network with its preprocessing, classes and calibration.

    Attributes:
        info: everything that a prediction needs besides the network.
    """

    info: ClassifierInfo

    def probabilities(self, images: Tensor) -> Tensor:
        """Maps cropped images to probabilities.

        Args:
            images: uint8 ``(N, C, S, S)``, 0-255, in the channel order ``info.contract["format"]``; with
                ``info.resize_inside`` whole images of any one size.

        Returns:
            float32 ``(N, K)`` in [0, 1], on the CPU.
        """

    def score(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities of labelled images, and the loss of each.

        Args:
            images: as for ``probabilities``.
            labels: ``(N,)`` int64, or ``(N, K)`` float32 for multi-label.

        Returns:
            ``probabilities(images)``, and float32 ``(N,)`` >= 0 without label smoothing and ``POS_WEIGHT``, on the CPU.
        """


class CheckpointClassifier:
    """A ``ClsNet`` in evaluation mode.

    Args:
        model: with its weights, on its device.
        info: of the checkpoint.
    """

    def __init__(self, model: ClsNet, info: ClassifierInfo):
        self.model = model.eval()
        self.info = info

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """As ``Classifier.probabilities``; for the same batch, bit for bit what evaluation computes."""
        return self.model.loss.probabilities(self._logits(images)).cpu()

    @torch.no_grad()
    def score(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Classifier.score``; for the same batch, bit for bit what evaluation computes."""
        logits, loss = self._logits(images), self.model.loss
        return loss.probabilities(logits).cpu(), loss.per_image(logits, labels.to(logits.device)).cpu()

    def _logits(self, images: Tensor) -> Tensor:
        logits = self.model.logits(images)
        return logits if self.info.temperature == 1.0 else logits.float() / self.info.temperature


def load_checkpoint_classifier(
    path: str, device: str | None = None, classes: Sequence[str] | None = None, raw: bool = False
) -> CheckpointClassifier:
    """Builds the network of a classifier's checkpoint, with all its settings from the file.

    Averaged weights (``SOLVER.EMA_DECAY``) are used where the file has them, as in the hand-off to a detector.

    Args:
        path: a checkpoint of either trainer.
        device: such as ``"cpu"`` or ``"cuda:1"``; None for the first GPU, or the CPU if there is none.
        classes: names to use instead of those in the file, which converted weights may lack.
        raw: use the raw weights where the file has averaged ones, too.

    Raises:
        UserFileNotFoundError: there is no such file.
        UserError: the file is damaged, is no classifier's checkpoint, or was written by another version whose settings
            this one does not know; or the device is not available.
    """
    device = choose_device(device)
    checkpoint = read_checkpoint(path)
    entry = _check_kind(checkpoint, path)
    outputs = next(len(tensor) for key, tensor in checkpoint["model"].items() if "head.linear." in key)
    if classes is not None:
        check_class_names(classes, outputs, path)
        entry["classes"] = list(classes)
    elif not entry["classes"]:
        raise UserError(f"{path} has no names for its {outputs} classes; give them with --classes FILE, one a line")
    cfg = _build_cfg(entry, device, path)
    try:
        model = build_model(cfg)
    except (KeyError, UserError) as error:  # a backbone that is not registered, or values of another version
        reason = str(error.args[0] if error.args else error)
        raise UserError(f"{path}: its network cannot be built here ({reason}){_written_by(entry)}") from error
    averaged = None if raw else checkpoint.get("ema")
    if averaged:
        _logger.info("%s: using the averaged weights (SOLVER.EMA_DECAY)", path)
    _load(model, unwrap(averaged or checkpoint["model"]), path, entry)
    return CheckpointClassifier(model, _build_info(cfg, entry, path, device))


def choose_device(device: str | None) -> str:
    """The name of a device that works.

    Args:
        device: None for the first GPU, or the CPU if there is none.

    Raises:
        UserError: there is no such device.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return "cuda" if gpus else "cpu"
    try:
        torch.empty(1, device=device)
    # torch raises RuntimeError, AssertionError or NotImplementedError, with messages of several lines.
    except Exception as error:
        allowed = "cpu" + (f", cuda, cuda:0 to cuda:{gpus - 1}" if gpus else "")
        raise UserError(f"device {device!r} is not available on this machine; allowed: {allowed}") from error
    return device


def check_class_names(names: Sequence[str], count: int, path: str) -> None:
    """Refuses names that are not one for each of the outputs of a model."""
    if len(names) != count:
        raise UserError(f"there are {len(names)} class names, and {path} has {count} outputs; give one for each")


def read_thresholds(entry: Mapping[str, Any], path: str) -> list[float]:
    """One threshold for each class: those of ``"thresholds"`` in a checkpoint, or 0.5.

    Args:
        entry: the ``"imgcls"`` entry. Its ``"thresholds"`` may have ``"score"``, a number for all classes, and
            ``"classes"``, one number for each.
        path: of the checkpoint, for the message.

    Raises:
        UserError: the number of thresholds is not that of the classes.
    """
    saved, count = entry.get("thresholds") or {}, len(entry["classes"])
    values: Sequence[float] = saved.get("classes") or [saved.get("score", 0.5)] * count
    if len(values) != count:
        raise UserError(f"{path}: has {len(values)} thresholds for {count} classes; it is damaged, train or tune again")
    return [float(value) for value in values]


def _check_kind(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The ``"imgcls"`` entry of a classifier's checkpoint."""
    kind, entry = kind_of(checkpoint), checkpoint.get("imgcls")
    if kind != "classifier":
        raise UserError(f"{path} is a {kind}'s checkpoint, which has no classes to predict; give a classifier's")
    if entry is None:
        raise UserError(
            f"{path} does not say how its images were prepared and which classes it has (no 'imgcls' entry); give a "
            "checkpoint of `imgcls train`, or convert public weights with `imgcls convert` and train on them"
        )
    missing = [name for name in ("cfg", "classes", "preprocessing") if name not in entry]
    if missing:
        raise UserError(f"{path}: its 'imgcls' entry has no {', '.join(missing)}{_written_by(entry)}")
    return dict(entry)


def _build_cfg(entry: Mapping[str, Any], device: str, path: str) -> CfgNode:
    """The config of a checkpoint for prediction: nothing is fetched, and the contract overrides the config text."""
    cfg = get_cfg()
    unknown = merge_known(cfg, yaml.safe_load(entry["cfg"]) or {})
    wrong = [key for key in unknown if key.startswith(_FUNCTION)]
    if wrong:
        raise UserError(f"{path}: this version does not know its {', '.join(wrong)}{_written_by(entry)}")
    contract, clsnet = entry["preprocessing"], cfg.MODEL.CLSNET
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN = contract["format"], list(contract["pixel_mean"])
    cfg.MODEL.PIXEL_STD = list(contract["pixel_std"])
    clsnet.INPUT_SIZE = int(contract.get("input_size", clsnet.INPUT_SIZE))
    cfg.INPUT.CROP_PCT = float(contract.get("crop_pct", cfg.INPUT.CROP_PCT))
    clsnet.NUM_CLASSES, clsnet.POS_WEIGHT = len(entry["classes"]), None
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.COMPILE, cfg.MODEL.TIMM.PRETRAINED = device, "", False, False
    return cfg


def _build_info(cfg: CfgNode, entry: Mapping[str, Any], path: str, device: str) -> ClassifierInfo:
    multi_label = cfg.MODEL.CLSNET.HEAD == "sigmoid"
    return ClassifierInfo(
        classes=list(entry["classes"]),
        multi_label=multi_label,
        thresholds=read_thresholds(entry, path) if multi_label else None,
        temperature=float(entry.get("temperature", 1.0)),
        contract=dict(entry["preprocessing"]),
        input_size=cfg.MODEL.CLSNET.INPUT_SIZE,
        crop_pct=cfg.INPUT.CROP_PCT,
        source=path,
        device=device,
        topk=tuple(cfg.TEST.TOPK),
        threshold=cfg.TEST.THRESHOLD,
    )


def merge_known(cfg: CfgNode, values: Mapping[str, Any]) -> list[str]:
    """Sets the keys of a saved config that this version has.

    Args:
        cfg: changed in place.
        values: plain Python types.

    Returns:
        The full names of the other keys.
    """
    unknown: list[str] = []
    _merge(cfg, values, "", unknown)
    return unknown


def _merge(cfg: CfgNode, values: Mapping[str, Any], prefix: str, unknown: list[str]) -> None:
    """Sets the keys of a config that this version has, and collects the others."""
    for name, value in values.items():
        if name not in cfg:
            unknown.append(f"{prefix}{name}")
        elif isinstance(cfg[name], CfgNode) and isinstance(value, Mapping):
            _merge(cfg[name], value, f"{prefix}{name}.", unknown)
        else:
            cfg[name] = CfgNode(value) if isinstance(value, dict) else value


def _load(model: torch.nn.Module, state: dict[str, Tensor], path: str, entry: Mapping[str, Any]) -> None:
    own = model.state_dict()
    wrong = [f"{key} is missing" for key in drop_counters(own) if key not in state]
    wrong += [f"{key} is unknown" for key in drop_counters(state) if key not in own]
    wrong += [
        f"{key} has shape {tuple(state[key].shape)}, the network {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if wrong:
        more = "; ..." if len(wrong) > 3 else ""
        raise UserError(
            f"{path}: its {len(state)} tensors do not fit the network of its own config ({'; '.join(wrong[:3])}{more})"
            f"{_written_by(entry)}"
        )
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def _written_by(entry: Mapping[str, Any]) -> str:
    version = entry.get("version", "an unknown version")
    return f"; it was written by imgcls {version} and this is {__version__}: install the version that wrote it"
