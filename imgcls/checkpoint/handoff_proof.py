"""The proof of a hand-off: a file in the run's folder that says which backbone was compared, and with what result."""

import json
import logging
import os
from pathlib import Path

from detectron2.config import CfgNode

from imgcls.disk import file_digest, write_text
from imgcls.errors import UserError

PROOF = "handoff.json"
_logger = logging.getLogger(__name__)


def write_proof(source: str, target: str, detector: str, tensors: int, left_out: int) -> None:
    """Writes ``handoff.json`` beside a checkpoint whose exported backbone equals that of a detector bit by bit.

    Nothing is written where the checkpoint is not in the folder of a run, which has ``config.yaml``. The export is
    complete, so a file that cannot be written is one line in the log.

    Args:
        source: the checkpoint.
        target: the exported backbone.
        detector: what loaded it.
        tensors: how many were compared.
        left_out: how many the detector does not need.
    """
    folder = Path(source).absolute().parent
    if not (folder / "config.yaml").is_file():
        return
    content = {
        "checkpoint": os.path.basename(source),
        "checkpoint_sha256": file_digest(source),
        "file": os.path.abspath(target),
        "sha256": file_digest(target),
        "detector": detector,
        "tensors": tensors,
        "left_out": left_out,
    }
    try:
        write_text(folder / PROOF, json.dumps(content, indent=1) + "\n")
    except UserError as error:
        _logger.warning("the report will not show this hand-off: %s", error)


def build_detector_name(cfg: CfgNode) -> str:
    """The architecture and the backbone of a detector's config, for a person."""
    return f"{cfg.MODEL.META_ARCHITECTURE}, {cfg.MODEL.BACKBONE.NAME}"
