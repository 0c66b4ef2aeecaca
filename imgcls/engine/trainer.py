"""detectron2's DefaultTrainer for classification, in a run that survives being killed."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from torch import Tensor, nn
from torch.optim import Optimizer

from imgcls.checkpoint import RunCheckpointer
from imgcls.data import ClsLoader, build_test_loader, build_train_loader, get_dataset
from imgcls.data.dataset import Dataset, Datasets
from imgcls.engine import build
from imgcls.engine.console import TrainingLinePrinter
from imgcls.engine.evaluate import call_with, evaluate_datasets, evaluate_with_ema, read_run_datasets, write_run_report
from imgcls.engine.loggers import build_loggers
from imgcls.engine.loop import Loop, LoopFace, build_plan
from imgcls.engine.run_state import RunState
from imgcls.engine.scalars import Progress
from imgcls.engine.step import broadcast_buffers
from imgcls.engine.tensorboard import build_tensorboard
from imgcls.solver import build_optimizer


class Trainer(DefaultTrainer):
    """Trains a ``ClsNet`` with our loaders, evaluators and checkpoints, and any other model with detectron2's.

    The loop evaluates, saves, logs and steps the schedule; hooks are for what a user adds.

    Args:
        cfg: checked, with everything resolved (``engine.setup``).
        datasets: the sets of ``DATASETS``, for a classifier; None reads them.
        allow_pickle: whether ``MODEL.WEIGHTS`` may be a file that can run code.

    Attributes:
        datasets: the training and test sets; None for a detector.
        run_state: everything that is saved and resumed.
    """

    def __init__(self, cfg: CfgNode, datasets: Datasets | None = None, allow_pickle: bool = False):
        # Not DefaultTrainer's constructor: its step does not accumulate gradients, and it puts no CPU model into DDP.
        TrainerBase.__init__(self)
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.datasets = read_run_datasets(cfg) if datasets is None and build.is_classifier(cfg) else datasets
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        scheduler = self.build_lr_scheduler(cfg, optimizer)
        classes = self.datasets.classes if self.datasets else ()
        build_checkpointer = partial(
            call_with, self.build_checkpointer, cfg, classes=classes, allow_pickle=allow_pickle
        )
        images = self.datasets.num_train_images if self.datasets else 0
        self.run_state = RunState(cfg, model, optimizer, scheduler, build_checkpointer, images)
        self.scheduler, self.checkpointer = scheduler, self.run_state.checkpointer
        self._trainer = _StepTrainer(self.run_state, self._build_train_loader(cfg))
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self._last_eval_results: OrderedDict = OrderedDict()
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """Returns no hooks: the loop times, schedules, evaluates, writes and saves. A subclass may add some."""
        return []

    def build_writers(self) -> list[EventWriter]:
        """The printed line, metrics.json, TensorBoard and ``OUTPUT.LOGGERS``; detectron2's own for a detector."""
        run, trackers = self.run_state, build_loggers(self.cfg, self.run_state.resumed)
        if self.datasets is None:
            return [*super().build_writers(), *trackers]
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        tensorboard = build_tensorboard(self.cfg, self.data_loader, self.datasets.train, run.first, run.resumed)
        return [TrainingLinePrinter(self.max_iter), JSONWriter(run.log.path), tensorboard, *trackers]

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads ``MODEL.WEIGHTS``, or with ``resume`` resumes the last checkpoint in ``OUTPUT_DIR`` if there is one."""
        if not resume:
            self.run_state.load()
        elif self.run_state.resume():
            self.start_iter = self.run_state.first
            self.iter = self.start_iter - 1
            if isinstance(self.data_loader, ClsLoader):  # a subclass may train on a loader of its own
                self.data_loader.start_at(self.start_iter)

    def train(self) -> OrderedDict:
        """Trains to the end or until patience runs out, and returns the last results (main process).

        Raises:
            SystemExit: with ``preempt.EXIT_CODE``, after SIGTERM or SIGUSR1 and a checkpoint.
            NonFiniteLossError: a loss is not finite.
        """
        cfg, progress = self.cfg, None
        if self.datasets is not None:
            progress = Progress(self.datasets.num_train_images, cfg.SOLVER.IMS_PER_BATCH, self.max_iter - 1)
        results = Loop(
            self.run_state,
            build_plan(cfg, self.max_iter - 1, progress.epochs_done if progress else lambda iteration: 0),
            run_step=self._run_step,
            evaluate=self._evaluate,
            face=_Hooks(self),
            writers=self.build_writers() if comm.is_main_process() else (),
            progress=progress,
        ).run()
        write_run_report(cfg, self.datasets)
        if cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(cfg, results)
        return results

    def _run_step(self, iteration: int) -> tuple[Mapping[str, Tensor], float] | None:
        self._trainer.outcome = None
        self.run_step()
        return self._trainer.outcome

    def _evaluate(self) -> OrderedDict:
        run = self.run_state
        self._last_eval_results = evaluate_with_ema(type(self), self.cfg, self.model, run.ema, self.datasets)
        return self._last_eval_results

    def _build_train_loader(self, cfg: CfgNode) -> Any:
        return call_with(self.build_train_loader, cfg, datasets=self.datasets)

    @classmethod
    def build_checkpointer(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        classes: Sequence[str] = (),
        allow_pickle: bool = False,
        **checkpointables: Any,
    ) -> RunCheckpointer:
        """See ``engine.build.build_checkpointer``."""
        return build.build_checkpointer(cfg, model, classes, allow_pickle, **checkpointables)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        """See ``solver.build_optimizer``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, datasets: Datasets | None = None) -> Any:
        """Our loader for a classifier; otherwise detectron2's, with the batch of one accumulation step."""
        if build.is_classifier(cfg):
            return build_train_loader(cfg, (datasets or read_run_datasets(cfg)).train)
        accumulated = cfg.clone()
        accumulated.defrost()
        accumulated.SOLVER.IMS_PER_BATCH //= cfg.SOLVER.ACCUM_STEPS
        return super().build_train_loader(accumulated)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str, dataset: Dataset | None = None) -> Any:
        """Our loader for a classifier, otherwise detectron2's; without ``dataset`` the set is read."""
        if not build.is_classifier(cfg):
            return super().build_test_loader(cfg, dataset_name)
        if dataset is None:
            dataset = get_dataset(dataset_name, get_dataset(cfg.DATASETS.TRAIN[0]).classes)
        return build_test_loader(cfg, dataset)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None, classes: Sequence[str] = ()
    ) -> DatasetEvaluator:
        """See ``engine.build.build_evaluator``."""
        return build.build_evaluator(cfg, dataset_name, output_folder, classes)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None, datasets: Datasets | None = None
    ) -> OrderedDict:
        """Evaluates on every set of ``DATASETS.TEST``, with the same weights and statistics on all ranks."""
        broadcast_buffers(model)
        if not build.is_classifier(cfg):
            return super().test(cfg, model, evaluators)
        datasets = datasets or read_run_datasets(cfg)
        evaluators = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators
        return evaluate_datasets(cls, cfg, model, datasets, evaluators)


class _StepTrainer(SimpleTrainer):
    """Calls our step where detectron2's trainers compute an iteration, so that hooks find the usual attributes."""

    def __init__(self, run: RunState, loader: Any):
        super().__init__(run.wrapped, loader, run.optimizer)
        self.step = run.step
        self.outcome: tuple[Mapping[str, Tensor], float] | None = None

    def run_step(self) -> None:
        self.outcome = self.step(self._data_loader_iter, self.iter)


class _Hooks(LoopFace):
    """Calls the hooks that a user registered, as detectron2's loop does."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        cfg, model = trainer.cfg, trainer.model
        enabled = cfg.TEST.PRECISE_BN.ENABLED
        self.precise_bn = build.build_precise_bn(cfg, model, trainer._build_train_loader(cfg) if enabled else None)

    def start(self, storage: EventStorage) -> None:
        self.trainer.storage = storage
        self.trainer.before_train()

    def before_step(self, iteration: int) -> None:
        self.trainer.iter = iteration
        self.trainer.before_step()

    def after_step(self, iteration: int) -> None:
        self.trainer.after_step()

    def before_save(self, iteration: int) -> None:
        if self.precise_bn is not None:
            self.precise_bn.update(iteration)

    def end(self) -> None:
        if self.trainer.iter == self.trainer.max_iter - 1:
            self.trainer.iter += 1  # its value after detectron2's own loop
        self.trainer.after_train()
