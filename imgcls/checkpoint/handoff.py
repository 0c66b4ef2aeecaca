"""What of a backbone checkpoint is in a backbone: a comparison tensor by tensor."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from imgcls.checkpoint.backbone import drop_counters, extract_backbone, kind_of
from imgcls.checkpoint.compat import (
    advise,
    build_contract,
    build_network,
    check_contract,
    check_network,
    read_contract,
    read_network,
)
from imgcls.checkpoint.files import read_checkpoint, write_checkpoint
from imgcls.errors import UserError

# A name up to the stage: "stages.mob5", "res5", "net.blocks.4", "net.model.blocks.4", "net.layer4".
_STAGE = re.compile(r"(net\.)?(model\.)?((stages|blocks|features)\.)?[^.]+")


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors, each in one list.

    Attributes:
        source: the file.
        loaded: in both and the same.
        missing: the model has it and the file has not.
        unexpected: the file has it and the model has not.
        mismatched: in both and different, with what differs.
        left_out: of later stages, which the model does not build and does not need.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all of the model's backbone came from the file, and nothing of the file found no place."""
        return bool(self.loaded) and not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """``135/135 backbone tensors loaded``, of those that the model has."""
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
    """A backbone checkpoint that does not fit; ``report`` says which tensors."""

    def __init__(self, message: str, report: LoadReport):
        super().__init__(message)
        self.report = report


def compare(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str, values: bool) -> LoadReport:
    """Compares a backbone with the tensors of a file by name and shape, and with ``values`` bit by bit."""
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
    return _STAGE.match(name)[0]


class Expected(NamedTuple):
    """What a model asks of weights: its preprocessing contract and its ``MODEL.MNET``, as far as they are known."""

    contract: Mapping[str, Any]
    network: Mapping[str, Any]


def build_expected(cfg: CfgNode) -> Expected:
    """What the model of a config asks of weights."""
    return Expected(build_contract(cfg), build_network(cfg))


def load_backbone(model: nn.Module, path: str, cfg: CfgNode | None = None) -> LoadReport:
    """Loads a backbone checkpoint into the backbone of a model, all of it or nothing.

    Args:
        model: a detector of detectron2 with or without FPN, a ``ClsNet``, or a backbone alone.
        path: a backbone checkpoint, of ``tools/export_backbone.py``.
        cfg: the model's config. Preprocessing, activation, strides and the like are compared with it; without it only
            the means, deviations and channel order that the model itself has.

    Returns:
        Which tensors were loaded, after a comparison bit by bit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a backbone checkpoint; trained on other preprocessing; a tensor that has no place in the
            model, is missing, or has another shape (``HandoffError``, which has the report).
    """
    backbone = find_backbone(model)
    checkpoint = read_checkpoint(path)
    check_fit(checkpoint, backbone, build_expected(cfg) if cfg else Expected(read_contract(model), {}), path)
    backbone.load_state_dict(checkpoint["model"], strict=False)
    return check_loaded(checkpoint, backbone, path)


def find_backbone(model: nn.Module) -> nn.Module:
    """The part of a model that a classifier's backbone goes into: below an FPN, its bottom-up network."""
    model = getattr(model, "module", model)  # DDP's
    model = getattr(model, "backbone", model)
    return getattr(model, "bottom_up", model)


def check_fit(checkpoint: Mapping[str, Any], backbone: nn.Module, expected: Expected, source: str) -> None:
    """Whether a backbone checkpoint means in this backbone what it meant where it was trained.

    Raises:
        ValueError: as ``load_backbone``.
    """
    if kind_of(checkpoint["model"]) == "classifier":
        raise UserError(
            f"{source} is a whole classifier, and a detector takes its backbone: "
            f"python tools/export_backbone.py {source} backbone.pth, then MODEL.WEIGHTS backbone.pth"
        )
    if "imgcls" not in checkpoint:
        raise UserError(f"{source} is not a backbone checkpoint; tools/export_backbone.py writes one")
    check_contract(checkpoint["imgcls"]["preprocessing"], expected.contract, source)
    network = read_network(checkpoint["imgcls"]["cfg"])
    report = compare(backbone, checkpoint["model"], source, values=False)
    if not report.complete:
        _refuse(report, advise(network, expected.network))
    check_network(network, expected.network, source)


def check_loaded(checkpoint: Mapping[str, Any], backbone: nn.Module, source: str) -> LoadReport:
    """Proves that every tensor of the backbone is that of the file.

    Raises:
        HandoffError: one is not.
    """
    report = compare(backbone, checkpoint["model"], source, values=True)
    if not report.complete:
        _refuse(report, "the loader did not take them")
    return report


def build_checked(cfg: CfgNode, backbone: nn.Module) -> nn.Module:
    """The backbone of a detector, after a look at the weights that ``MODEL.WEIGHTS`` will put into it.

    detectron2's checkpointer only warns of weights that do not fit, and does not know of preprocessing. A script that
    is not ours uses it; the place where such a script meets us is the building of the backbone.

    Raises:
        ValueError: as ``load_backbone``, where ``MODEL.WEIGHTS`` is a classification or backbone checkpoint of ours.
    """
    path = cfg.MODEL.WEIGHTS
    if cfg.MODEL.META_ARCHITECTURE != "ClsNet" and os.path.isfile(path) and not path.endswith(".pkl"):
        try:
            checkpoint = read_checkpoint(path)
        except UserError:  # for whoever loads it to tell: a resumed run does not even read it
            return backbone
        if "imgcls" in checkpoint:
            check_fit(checkpoint, backbone, build_expected(cfg), path)
    return backbone


def _refuse(report: LoadReport, advice: str) -> None:
    problems = report.problems()
    more = f"; ... ({len(problems)} in all)" if len(problems) > 3 else ""
    raise HandoffError(
        f"{report.source} does not fit the model's backbone, {report.summary()}: {'; '.join(problems[:3])}{more}; "
        f"{advice}",
        report,
    )


def export_backbone(source: str, target: str, verify: CfgNode | None = None, allow_pickle: bool = False) -> str:
    """Writes the backbone that is in ``source`` to ``target``.

    Args:
        source: a classification checkpoint of either trainer, or one of the 2020 project.
        target: the backbone checkpoint; what was there before is replaced only if all went well.
        verify: the config of a detector. It is built and loaded by detectron2's own checkpointer, and every
            tensor compared.
        allow_pickle: see ``read_checkpoint``.

    Returns:
        What was done, in one line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a source that holds no classifier; a detector that it does not fit (``HandoffError``); a target that
            cannot be written.
    """
    checkpoint = extract_backbone(read_checkpoint(source, allow_pickle), source)
    if not verify:
        write_checkpoint(target, checkpoint)
        return f"{len(checkpoint['model'])} backbone tensors written, classifier dropped"
    with tempfile.TemporaryDirectory() as folder:
        unproved = os.path.join(folder, "backbone.pth")
        write_checkpoint(unproved, checkpoint)
        report = verify_backbone(unproved, verify, named=target)
    write_checkpoint(target, checkpoint)
    return f"{report.summary()}, classifier dropped"


def verify_backbone(path: str, cfg: CfgNode, named: str = "") -> LoadReport:
    """Builds the detector of a config on the CPU, loads a backbone checkpoint as detectron2 does, and compares.

    Args:
        path: a backbone checkpoint.
        cfg: the detector's config; left as it is.
        named: what to call the file in messages instead of ``path``.

    Raises:
        ValueError: as ``load_backbone``.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    model = build_model(cfg)
    checkpoint, backbone = read_checkpoint(path), find_backbone(model)
    check_fit(checkpoint, backbone, build_expected(cfg), named or path)
    DetectionCheckpointer(model).load(path)
    return check_loaded(checkpoint, backbone, named or path)
