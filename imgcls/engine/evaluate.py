"""Evaluation of a checkpoint, without training."""

from collections import OrderedDict

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from imgcls.errors import UserError

from .trainer import Trainer


def evaluate(cfg: CfgNode, resume: bool = False) -> OrderedDict:
    """Evaluates ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on every set of ``DATASETS.TEST``.

    Returns:
        What the evaluators give, on the first process; empty on the others.

    Raises:
        ValueError: no weights are named.
    """
    if not (cfg.MODEL.WEIGHTS or resume):
        raise UserError(
            "--eval-only without weights would score random numbers: "
            "set MODEL.WEIGHTS to a checkpoint, or add --resume for the last one in OUTPUT_DIR"
        )
    model = Trainer.build_model(cfg)
    Trainer.build_checkpointer(cfg, model).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
