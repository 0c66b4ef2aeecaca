"""Hand-off of a classifier's backbone to detectors, verified by comparing every tensor."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from imgcls.checkpoint.backbone import drop_counters, extract_backbone, kind_of, unwrap
from imgcls.checkpoint.compat import (
    Settings,
    Use,
    advise,
    build_expected,
    check_settings,
    read_model_settings,
    read_settings,
)
from imgcls.checkpoint.files import read_checkpoint, write_checkpoint
from imgcls.checkpoint.handoff_proof import build_detector_name, write_proof
from imgcls.errors import UserError

# A name up to the stage: "stages.mob5", "res5", "net.blocks.4", "net.model.blocks.4", "net.layer4".
_STAGE = re.compile(r"(net\.)?(model\.)?((stages|blocks|features)\.)?[^.]+")
# The names of our own builders, which tell whether the backbone of a detector is inside an FPN.
_OUR_BUILDER = re.compile(r"build_(retinanet_)?(mnetv[12]|timm)(_fpn)?_backbone")
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class LoadReport:
    """A comparison of a file with a backbone; every tensor's name is in one of the lists.

    Attributes:
        source: the file.
        loaded: in both, and equal.
        missing: only in the model.
        unexpected: only in the file.
        mismatched: in both, but different; each with the difference.
        left_out: only in the file, in a later stage that the model does not build because it does not need it.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the whole backbone came from the file, and every tensor of the file was used or left out."""
        return bool(self.loaded) and not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """One line: ``135/135 backbone tensors loaded``, where the second number counts the model's."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        stages = sorted({_stage(name) for name in self.left_out})
        note = f" ({', '.join(stages)} of the file left out: the model does not build it)" if stages else ""
        return f"{len(self.loaded)}/{total} backbone tensors loaded{note}"

    def problems(self) -> list[str]:
        """One line for each tensor that did not fit."""
        return [
            *self.mismatched,
            *(f"{name} is missing in the file" for name in self.missing),
            *(f"{name} is not in the model" for name in self.unexpected),
        ]


class HandoffError(UserError):
    """A backbone checkpoint that does not fit; ``report`` lists the tensors."""

    def __init__(self, message: str, report: LoadReport):
        super().__init__(message)
        self.report = report


def compare(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str, values: bool) -> LoadReport:
    """Compares a backbone with the tensors of a file by name and shape, and with ``values`` also bit by bit."""
    state = backbone.state_dict()
    names = drop_counters(state)
    built = {_stage(name) for name in names}
    report = LoadReport(source, missing=[name for name in names if name not in tensors])
    for name in drop_counters(tensors):
        if name not in state:
            (report.unexpected if _stage(name) in built else report.left_out).append(name)
        elif tensors[name].shape != state[name].shape:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(state[name].shape)} in the model"
            report.mismatched.append(f"{name} is {shapes}")
        elif values and not torch.equal(tensors[name], state[name].cpu()):
            report.mismatched.append(f"{name} has other values in the model than in the file")
        else:
            report.loaded.append(name)
    return report


def _stage(name: str) -> str:
    match = _STAGE.match(name)
    return match[0] if match else name


def load_backbone(model: nn.Module, path: str, cfg: CfgNode | None = None) -> LoadReport:
    """Loads a backbone checkpoint into the backbone of a model, either completely or not at all.

    Args:
        model: a detector of detectron2 with or without FPN, a ``ClsNet``, or a backbone alone.
        path: a backbone checkpoint, written by ``tools/export_backbone.py``.
        cfg: the model's config, with which preprocessing, activation, strides and so on are compared. Without it only
            the pixel means, deviations and channel order that the model itself carries are compared.

    Returns:
        Which tensors were loaded, after a comparison bit by bit.

    Raises:
        UserFileNotFoundError: no such file.
        UserError: not a backbone checkpoint, or one that was trained with other settings.
        HandoffError: a tensor is not in the model, is missing, or has another shape.
    """
    backbone = find_backbone(model)
    checkpoint = read_checkpoint(path)
    check_fit(checkpoint, backbone, build_expected(cfg) if cfg else read_model_settings(model), path)
    backbone.load_state_dict(checkpoint["model"], strict=False)
    return check_loaded(checkpoint["model"], backbone, path)


def find_backbone(model: nn.Module) -> nn.Module:
    """The module that the tensors of a backbone checkpoint belong to; inside an FPN it is the bottom-up network."""
    for name in ("module", "backbone", "bottom_up"):  # the first is DDP's
        model = getattr(model, name, model)
    return model


def check_fit(checkpoint: Mapping[str, Any], backbone: nn.Module, expected: Settings, source: str) -> None:
    """Checks that a backbone checkpoint will compute in ``backbone`` what it computed where it was trained.

    ``expected`` is from ``build_expected``, ``source`` is the path of the checkpoint; raises as ``load_backbone``.
    """
    kind = kind_of(checkpoint)
    if kind == "classifier":
        raise UserError(
            f"{source} is a whole classifier, and a detector takes its backbone: "
            f"python tools/export_backbone.py {source} backbone.pth, then MODEL.WEIGHTS backbone.pth"
        )
    if kind == "detector" or "imgcls" not in checkpoint:
        raise UserError(f"{source} is not a backbone checkpoint; tools/export_backbone.py writes one")
    saved = read_settings(checkpoint["imgcls"])
    report = compare(backbone, checkpoint["model"], source, values=False)
    if not report.complete:
        _refuse(report, advise(saved, expected, Use.BACKBONE))
    check_settings(saved, expected, source, Use.BACKBONE)


def check_loaded(tensors: Mapping[str, Tensor], backbone: nn.Module, source: str) -> LoadReport:
    """Raises a ``HandoffError`` unless every tensor of a backbone equals that of the file, bit by bit."""
    report = compare(backbone, tensors, source, values=True)
    if not report.complete:
        _refuse(report, "the loader did not load them")
    return report


def build_checked(cfg: CfgNode, backbone: _Network) -> _Network:
    """Returns the backbone of a detector after a check that ``MODEL.WEIGHTS`` fits it.

    detectron2's checkpointer only warns about weights that do not fit, and does not compare preprocessing. Scripts
    that use it with our backbones never call our checkpointers, but they do build the backbone, which calls this.
    Nothing is unpickled; a file that cannot be read safely is not checked.

    Raises:
        UserError: as ``load_backbone``; for files of other projects, no tensor fits the backbone.
    """
    path = cfg.MODEL.WEIGHTS
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet" or not os.path.isfile(path):
        return backbone
    try:
        checkpoint = read_checkpoint(path, mapped=True)
    except UserError:  # the checkpointer reports it; a resumed run does not read this file at all
        return backbone
    kind, expected = kind_of(checkpoint), build_expected(cfg)
    if kind == "classifier" or (kind == "backbone" and "imgcls" in checkpoint):
        check_fit(checkpoint, backbone, expected, path)
        return backbone
    if "imgcls" in checkpoint:
        check_settings(read_settings(checkpoint["imgcls"]), expected, path, Use.BACKBONE)
    if not _fits_anywhere(checkpoint, backbone, cfg.MODEL.BACKBONE.NAME):
        raise UserError(
            f"{path} does not fit the model's backbone: detectron2 would load none of its tensors; check "
            "MODEL.BACKBONE.NAME and MODEL.MNET, or convert weights of another project with tools/convert_weights.py"
        )
    return backbone


def _fits_anywhere(checkpoint: Mapping[str, Any], backbone: nn.Module, builder: str) -> bool:
    """Whether detectron2's checkpointer would load at least one tensor into the backbone of a detector."""
    prefixes = ["backbone.", "backbone.bottom_up."]
    if _OUR_BUILDER.fullmatch(builder):
        prefixes = prefixes[1:] if "_fpn_" in builder else prefixes[:1]
    tensors, whole = checkpoint["model"], unwrap(checkpoint["model"])
    state = backbone.state_dict()
    for name in drop_counters(state):
        for prefix in prefixes:
            found = [whole.get(prefix + name)]
            if checkpoint.get("matching_heuristics", False):  # detectron2 then also matches the end of a name
                parts = (prefix + name).split(".")
                found += [tensors.get(".".join(parts[i:])) for i in range(len(parts))]
            if any(tensor is not None and tensor.shape == state[name].shape for tensor in found):
                return True
    return False


def _refuse(report: LoadReport, advice: str) -> None:
    problems = report.problems()
    more = f"; ... ({len(problems)} in all)" if len(problems) > 3 else ""
    raise HandoffError(
        f"{report.source} does not fit the model's backbone, {report.summary()}: {'; '.join(problems[:3])}{more}; "
        f"{advice}",
        report,
    )


def export_backbone(
    source: str, target: str, verify: CfgNode | None = None, allow_pickle: bool = False, raw: bool = False
) -> str:
    """Writes the backbone of the classifier in ``source`` to ``target``.

    Args:
        source: a classifier's checkpoint of either trainer or of the 2020 project.
        target: the backbone checkpoint; an existing file is replaced only if everything succeeds.
        verify: the config of a detector, which is built, loaded by detectron2's own checkpointer, and compared tensor
            by tensor before ``target`` is written; if ``source`` is in a run's folder, ``handoff.json`` there says so.
            None skips this.
        allow_pickle: see ``read_checkpoint``.
        raw: see ``read_checkpoint``.

    Returns:
        A one-line summary of what was done.

    Raises:
        UserFileNotFoundError: no such file.
        UserError: ``source`` does not hold a classifier, or ``target`` cannot be written.
        HandoffError: the backbone does not fit the detector.
    """
    checkpoint = extract_backbone(read_checkpoint(source, allow_pickle, raw=raw), source)
    if not verify:
        write_checkpoint(target, checkpoint)
        return f"{len(checkpoint['model'])} backbone tensors written, classifier dropped"
    with tempfile.TemporaryDirectory() as folder:
        temporary = os.path.join(folder, "backbone.pth")
        write_checkpoint(temporary, checkpoint)
        report = verify_backbone(temporary, verify, named=source)
    write_checkpoint(target, checkpoint)
    write_proof(source, target, build_detector_name(verify), len(report.loaded), len(report.left_out))
    return f"{report.summary()}, classifier dropped"


def verify_backbone(path: str, cfg: CfgNode, named: str = "") -> LoadReport:
    """Builds the detector of a config on the CPU, loads a backbone checkpoint as detectron2 does, and compares.

    ``cfg`` is not changed. Messages call the file ``named`` instead of ``path``. Raises as ``load_backbone``.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    model = build_model(cfg)
    checkpoint, backbone = read_checkpoint(path), find_backbone(model)
    check_fit(checkpoint, backbone, build_expected(cfg), named or path)
    DetectionCheckpointer(model).load(path)
    return check_loaded(checkpoint["model"], backbone, named or path)
