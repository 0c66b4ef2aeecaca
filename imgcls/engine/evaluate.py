"""Evaluation of weights, of their average, and of a checkpoint without training; and the report of a run."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format, verify_results
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imgcls.data.catalog import read_datasets
from imgcls.data.dataset import Datasets
from imgcls.engine.build import is_classifier
from imgcls.engine.console import DETAIL
from imgcls.engine.scalars import RunStorage
from imgcls.errors import UserError
from imgcls.evaluation.gathered import GatheredEvaluator
from imgcls.solver import build_ema

if TYPE_CHECKING:
    from imgcls.engine.trainer import Trainer

_logger = logging.getLogger(__name__)


def read_run_datasets(cfg: CfgNode) -> Datasets:
    """The sets of ``DATASETS``, for a classifier."""
    return read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)


def evaluate_datasets(
    trainer: type["Trainer"],
    cfg: CfgNode,
    model: nn.Module,
    datasets: Datasets,
    evaluators: Sequence[DatasetEvaluator] | None = None,
) -> OrderedDict:
    """Evaluates a classifier on every test set, with the trainer's ``build_test_loader`` and ``build_evaluator``.

    ``evaluators`` has one for each test set; None builds them.

    Returns:
        Results by test set, or those of the only one; empty on all ranks but the main process.
    """
    results = OrderedDict()
    for index, dataset in enumerate(datasets.test):
        loader = call_with(trainer.build_test_loader, cfg, dataset.name, dataset=dataset)
        if evaluators is None:
            evaluator = call_with(trainer.build_evaluator, cfg, dataset.name, classes=dataset.classes)
        else:
            evaluator = evaluators[index]
        results[dataset.name] = inference_on_dataset(model, loader, evaluator)
        _hand_on_scores(cfg, evaluator)
        if comm.is_main_process():
            _logger.info("Evaluation results for %s in csv format:", dataset.name, extra=DETAIL)
            print_csv_format(results[dataset.name])
    return next(iter(results.values())) if len(results) == 1 else results


def _hand_on_scores(cfg: CfgNode, evaluator: DatasetEvaluator) -> None:
    """Gives all probabilities to the storage of the run, if this evaluation is part of one and they were kept."""
    try:
        storage = get_event_storage()
    except AssertionError:  # detectron2's, outside a training
        return
    if isinstance(storage, RunStorage) and isinstance(evaluator, GatheredEvaluator) and evaluator.scores is not None:
        name = os.path.relpath(evaluator.output_dir or ".", os.path.join(cfg.OUTPUT_DIR, "inference"))
        storage.put_scores("" if name == "." else name, *evaluator.scores, evaluator.classes)


def evaluate_with_ema(
    trainer: type["Trainer"], cfg: CfgNode, model: nn.Module, ema: AveragedModel | None, datasets: Datasets | None
) -> OrderedDict:
    """Evaluates a model with the trainer's ``test``, and then the average of its weights unless ``ema`` is None.

    Returns:
        The results of the evaluators, those of the average under ``"ema"``; empty on all ranks but the main process.
    """
    results = call_with(trainer.test, cfg, model, datasets=datasets)
    if ema is not None:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", "ema")
        classes = datasets.classes if datasets else ()
        evaluators = [
            call_with(trainer.build_evaluator, cfg, name, folder, classes=classes) for name in cfg.DATASETS.TEST
        ]
        averaged = call_with(trainer.test, cfg, ema.module, evaluators, datasets=datasets)
        if averaged:
            results["ema"] = averaged
    return results


def evaluate(
    trainer: type["Trainer"],
    cfg: CfgNode,
    datasets: Datasets | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
) -> OrderedDict:
    """Evaluates ``MODEL.WEIGHTS`` on every set of ``DATASETS.TEST``, and returns the same as ``evaluate_with_ema``.

    Args:
        trainer: builds the model, its checkpointer and the evaluators.
        cfg: the config of the run.
        datasets: of the run; None reads them.
        resume: whether to evaluate the last checkpoint in ``OUTPUT_DIR`` instead.
        allow_pickle: whether a file that can run code may be read.

    Raises:
        UserError: no weights are given, or ``SOLVER.EMA_DECAY`` asks for averaged ones that are not in the file.
    """
    if datasets is None and is_classifier(cfg):
        datasets = read_run_datasets(cfg)
    model = trainer.build_model(cfg)
    ema = build_ema(cfg, model)
    classes = datasets.classes if datasets else ()
    checkpointer = call_with(trainer.build_checkpointer, cfg, model, classes=classes, allow_pickle=allow_pickle)
    if not (cfg.MODEL.WEIGHTS or (resume and checkpointer.has_checkpoint())):
        raise UserError(
            "evaluation without weights would score random numbers: set MODEL.WEIGHTS to a checkpoint, or resume a "
            f"run (in OUTPUT_DIR {cfg.OUTPUT_DIR} there is {'none' if resume else 'perhaps one: add --resume'})"
        )
    rest = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if ema is not None:
        if "ema" not in rest:
            raise UserError(
                f"{checkpointer.source} has no averaged weights; set SOLVER.EMA_DECAY 0.0 to evaluate it without"
            )
        ema.load_state_dict(rest["ema"])
    results = evaluate_with_ema(trainer, cfg, model, ema, datasets)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def write_run_report(cfg: CfgNode, datasets: Datasets | None) -> None:
    """Writes the page about a finished training, on the main process; a failure is logged in one line.

    Args:
        cfg: of the run.
        datasets: of the run; None for a detector.
    """
    if not comm.is_main_process():
        return
    try:
        from imgcls.report import write_report  # late, because most processes never need it

        _logger.info("report: %s", write_report(cfg.OUTPUT_DIR, datasets).page)
    except Exception as error:  # the run is complete, and nothing here may make it fail
        reason = " ".join(str(error).split()) or type(error).__name__
        _logger.warning("there is no report: %s; imgcls report %s writes it", reason, cfg.OUTPUT_DIR)


def call_with(function: Callable[..., Any], *args: Any, **extra: Any) -> Any:
    """Calls a method with those of our additional keyword arguments that it accepts.

    A user's override that was written for detectron2's ``DefaultTrainer`` does not know them.
    """
    parameters = signature(function).parameters
    takes_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    return function(*args, **{name: value for name, value in extra.items() if takes_all or name in parameters})
