"""The hand-off of a backbone from a classifier to any detectron2 model: proved, or refused."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from torch import nn

from imgcls.errors import UserError

from .backbone_file import kind_of
from .contract import build_contract, check_contract, read_contract
from .files import read_checkpoint
from .load_report import HandoffError, LoadReport, compare
from .network import advise, build_network, check_network, read_network


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
