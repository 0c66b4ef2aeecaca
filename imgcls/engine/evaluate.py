"""Evaluation of the weights, of their average, and of a checkpoint without training."""

import os
from collections import OrderedDict

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imgcls.errors import UserError
from imgcls.solver import build_ema


def test_with_average(
    trainer: type[DefaultTrainer], cfg: CfgNode, model: nn.Module, ema: AveragedModel | None
) -> OrderedDict:
    """Evaluates a model and, where there is one, the average of its weights, whose results are under ``"ema"``.

    Args:
        trainer: whose ``test`` and ``build_evaluator`` are used.

    Returns:
        What the evaluators give, on the first process; empty on the others.
    """
    results = trainer.test(cfg, model)
    if ema is not None:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", "ema")
        evaluators = [trainer.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        averaged = trainer.test(cfg, ema.module, evaluators)
        if averaged:
            results["ema"] = averaged
    return results


def evaluate(trainer: type[DefaultTrainer], cfg: CfgNode, resume: bool = False) -> OrderedDict:
    """Evaluates ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on every set of ``DATASETS.TEST``.

    Returns:
        As ``test_with_average``.

    Raises:
        ValueError: no weights are named, or ``SOLVER.EMA_DECAY`` asks for averaged ones that are not in the file.
    """
    if not (cfg.MODEL.WEIGHTS or resume):
        raise UserError(
            "--eval-only without weights would score random numbers: "
            "set MODEL.WEIGHTS to a checkpoint, or add --resume for the last one in OUTPUT_DIR"
        )
    model = trainer.build_model(cfg)
    ema = build_ema(cfg, model)
    checkpointer = trainer.build_checkpointer(cfg, model)
    rest = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if ema is not None:
        if "ema" not in rest:
            raise UserError(
                f"{checkpointer.source} has no averaged weights; set SOLVER.EMA_DECAY 0.0 to evaluate it without"
            )
        ema.load_state_dict(rest["ema"])
    results = test_with_average(trainer, cfg, model, ema)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
