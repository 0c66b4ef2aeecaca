"""detectron2's DefaultTrainer, for classification, in a run that survives being killed."""

import logging
from collections import OrderedDict
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from imgcls.data import ClsLoader, build_test_loader, build_train_loader
from imgcls.engine import build
from imgcls.engine.build import broadcast_buffers, evaluate_with_ema, wrap_ddp
from imgcls.engine.hooks import Evaluate, PreciseBN, ReadScalars, SaveCheckpoints, WriteLines
from imgcls.engine.preempt import EXIT_CODE, Preemption
from imgcls.engine.run_state import BestTracker, RunLog
from imgcls.engine.scalars import Scalars
from imgcls.engine.step import TrainStep, build_step
from imgcls.solver import apply_schedule, build_ema, read_options

_logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains a ``ClsNet`` with our loaders, evaluators and checkpoints, and any other model with detectron2's.

    Attributes:
        best: the best evaluation so far.
    """

    def __init__(self, cfg: CfgNode):
        # Not DefaultTrainer's own: it wraps a model for GPUs only, and its step knows no accumulation.
        TrainerBase.__init__(self)
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        ema = build_ema(cfg, model)
        wrapped = wrap_ddp(model)
        self._trainer = _StepTrainer(
            wrapped, self.build_train_loader(cfg), optimizer, build_step(cfg, wrapped, optimizer, ema)
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.best = BestTracker(cfg.TEST.BEST_METRIC, cfg.TEST.PATIENCE)
        self._log = RunLog(cfg.OUTPUT_DIR, cfg.SOLVER.LOG_PERIOD)
        parts = build.checkpointables(optimizer, self.scheduler, self._trainer.step, self.best, self._log)
        self.checkpointer = self.build_checkpointer(cfg, wrapped, **parts)
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self._last_eval_results = OrderedDict()
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """detectron2's timer, schedule and writers, and our evaluation and checkpoints."""
        cfg = self.cfg
        built = [hooks.IterationTimer(), hooks.LRScheduler()]
        periods = (cfg.SOLVER.LOG_PERIOD, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD)
        built.append(ReadScalars(periods, self._read_scalars))
        if cfg.TEST.PRECISE_BN.ENABLED and hooks.get_bn_modules(self.model):
            loader, count = self.build_train_loader(cfg), cfg.TEST.PRECISE_BN.NUM_ITER
            built.append(PreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, count))
        built.append(Evaluate(cfg.TEST.EVAL_PERIOD, self._evaluate))
        if comm.is_main_process():
            built.append(WriteLines(self.build_writers(), period=cfg.SOLVER.LOG_PERIOD))
            built.append(SaveCheckpoints(cfg.SOLVER.CHECKPOINT_PERIOD))
        return built

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, and goes on with the data behind it."""
        options, base_lrs = read_options(self.optimizer), self.scheduler.base_lrs
        rest = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if not resume:
            return
        apply_schedule(self.optimizer, self.scheduler, options, base_lrs)
        # The checkpoint names the iteration that was just finished.
        self.iter = rest["iteration"]
        self.start_iter = self.iter + 1
        # A subclass may train on a loader of its own.
        if isinstance(self.data_loader, ClsLoader):
            self.data_loader.start_at(self.start_iter)

    def train(self) -> OrderedDict:
        """Trains to the end, or until patience is, and gives the results of the last evaluation (first process).

        Raises:
            SystemExit: with ``preempt.EXIT_CODE``, after SIGTERM or SIGUSR1 and a checkpoint.
            FloatingPointError: the loss is not finite.
        """
        if self.start_iter >= self.max_iter or self.best.stop:
            _logger.info("nothing is left to train: this run ended at iteration %d", self.start_iter - 1)
            return self._last_eval_results
        _logger.info("training iterations %d to %d", self.start_iter, self.max_iter - 1)
        with Preemption() as preemption, EventStorage(self.start_iter) as self.storage:
            self._log.start(self.storage)
            self.before_train()
            try:
                for iteration in range(self.start_iter, self.max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.best.stop:
                        break
                    if preemption.requested() and self.iter + 1 < self.max_iter:
                        self._leave()
                self.iter += 1
            finally:
                self.after_train()
        if self.cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def save(self, name: str, tag: bool = True) -> None:
        """Writes a checkpoint of the iteration that was just finished; ``tag`` makes it the one to resume from."""
        self.checkpointer.save(name, tag=tag, iteration=self.iter)

    def _read_scalars(self) -> None:
        self._trainer.step.finite.check()
        self._trainer.scalars.read(self.storage)

    def _leave(self) -> None:
        self._read_scalars()
        if comm.is_main_process():
            self.save(f"model_{self.iter:07d}")
        comm.synchronize()
        raise SystemExit(EXIT_CODE)

    def _evaluate(self) -> OrderedDict:
        self._last_eval_results = evaluate_with_ema(type(self), self.cfg, self.model, self._trainer.step.ema)
        return self._last_eval_results

    @classmethod
    def build_checkpointer(cls, cfg: CfgNode, model: nn.Module, **checkpointables: Any) -> DetectionCheckpointer:
        return build.build_checkpointer(cfg, model, **checkpointables)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if build.is_classifier(cfg):
            return build_train_loader(cfg)
        part = cfg.clone()
        part.defrost()
        part.SOLVER.IMS_PER_BATCH //= cfg.SOLVER.ACCUM_STEPS
        return super().build_train_loader(part)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        if build.is_classifier(cfg):
            return build_test_loader(cfg, dataset_name)
        return super().build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
        return build.build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> OrderedDict:
        """Evaluates on every set of ``DATASETS.TEST``, with the same weights and statistics on all ranks."""
        broadcast_buffers(model)
        return super().test(cfg, model, evaluators)


class _StepTrainer(SimpleTrainer):
    """detectron2's loop body around our step."""

    def __init__(self, model: nn.Module, loader: Any, optimizer: Any, step: TrainStep):
        super().__init__(model, loader, optimizer)
        self.step = step
        self.scalars = Scalars()

    def run_step(self) -> None:
        losses, waited = self.step(self._data_loader_iter, self.iter)
        self.scalars.add(self.iter, losses, {}, data_time=waited)
