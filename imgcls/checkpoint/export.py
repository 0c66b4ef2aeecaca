"""From a classifier's checkpoint to a backbone's, tried out in a detector before it is kept."""

import os
import tempfile

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from .backbone_file import extract_backbone
from .files import read_checkpoint, write_checkpoint
from .handoff import build_expected, check_fit, check_loaded, find_backbone
from .load_report import LoadReport


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
