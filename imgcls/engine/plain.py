"""The second trainer: the loop in plain PyTorch, without detectron2's trainer and hooks.

It prints what PyTorch's ImageNet example prints, evaluates and saves at the end of every epoch, and writes the same
metrics.json and the same checkpoints as ``Trainer``: with one config, both do the same arithmetic.
"""

import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import verify_results
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from torch import Tensor

from imgcls.data import build_train_loader
from imgcls.data.dataset import Datasets
from imgcls.engine.build import build_checkpointer, build_precise_bn
from imgcls.engine.evaluate import evaluate_with_ema, read_run_datasets, write_run_report
from imgcls.engine.loggers import build_loggers
from imgcls.engine.loop import Loop, LoopFace, build_plan
from imgcls.engine.run_state import RunState
from imgcls.engine.scalars import IterationScalars, Progress, TrainingAccuracy
from imgcls.engine.tensorboard import build_tensorboard
from imgcls.engine.trainer import Trainer
from imgcls.solver import build_optimizer, iterations

_logger = logging.getLogger(__name__)


class PlainTrainer:
    """Trains a ``ClsNet``. The arguments are those of ``Trainer``.

    Attributes:
        datasets: the training and test sets.
        run_state: everything that is saved and resumed.
        results: of the last evaluation, on the main process.
    """

    def __init__(self, cfg: CfgNode, datasets: Datasets | None = None, allow_pickle: bool = False):
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.datasets = datasets or read_run_datasets(cfg)
        self.model = build_model(cfg)
        optimizer = build_optimizer(cfg, self.model)
        scheduler = build_lr_scheduler(cfg, optimizer)
        checkpointer = partial(build_checkpointer, cfg, classes=self.datasets.classes, allow_pickle=allow_pickle)
        images = self.datasets.num_train_images
        self.run_state = RunState(cfg, self.model, optimizer, scheduler, checkpointer, images)
        self.loader = build_train_loader(cfg, self.datasets.train)
        self.results: OrderedDict = OrderedDict()

    def load(self, resume: str = "", start_epoch: int = 0) -> None:
        """Loads what the training starts from.

        Args:
            resume: a checkpoint of either trainer to resume, or a folder of them; empty for ``MODEL.WEIGHTS``. If it
                is the run's own folder and has no checkpoint, a new run starts.
            start_epoch: epoch of the schedule and of the data in which a new run starts.
        """
        run = self.run_state
        if resume:
            own = os.path.isdir(resume) and _same(resume, self.cfg.OUTPUT_DIR)
            if run.resume("" if own else resume):
                self._link(run.checkpointer.source)  # a killed run may not have reached this step
        else:
            run.load()
        if not run.first and start_epoch:
            run.start_at(iterations(start_epoch, self.loader.num_images, self.loader.batch_size))
        self.loader.start_at(run.first)

    def train(self) -> OrderedDict:
        """Trains to the end or until patience runs out, and returns ``results``.

        Raises:
            SystemExit: with ``preempt.EXIT_CODE``, after SIGTERM or SIGUSR1 and a checkpoint.
            NonFiniteLossError: a loss is not finite.
        """
        cfg, run = self.cfg, self.run_state
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        progress = Progress(self.loader.num_images, self.loader.batch_size, cfg.SOLVER.MAX_ITER - 1)
        batches = iter(self.loader)
        Loop(
            run,
            build_plan(cfg, progress.last, progress.epochs_done, every_epoch=True),
            run_step=lambda iteration: run.step(batches, iteration),
            evaluate=self._evaluate,
            face=_Console(self, progress),
            writers=self._build_writers() if comm.is_main_process() else (),
            progress=Progress(self.loader.num_images, self.loader.batch_size, progress.last),
        ).run()
        write_run_report(cfg, self.datasets)
        if cfg.TEST.EXPECTED_RESULTS and comm.is_main_process():
            verify_results(cfg, self.results)
        return self.results

    def _build_writers(self) -> list[EventWriter]:
        run, trackers = self.run_state, build_loggers(self.cfg, self.run_state.resumed)
        tensorboard = build_tensorboard(self.cfg, self.loader, self.datasets.train, run.first, run.resumed)
        return [JSONWriter(run.log.path), tensorboard, *trackers]

    def _evaluate(self) -> OrderedDict:
        run = self.run_state
        self.results = evaluate_with_ema(Trainer, self.cfg, run.wrapped, run.ema, self.datasets)
        return self.results

    def _link(self, path: str) -> None:
        """Makes ``checkpoint.pth`` another name of a file in the run's folder."""
        folder = self.run_state.checkpointer.save_dir
        other = os.path.join(folder, "checkpoint.pth")
        if comm.is_main_process() and _same(os.path.dirname(path), folder) and not _same(path, other):
            _link(path, other)


class _Console(LoopFace):
    """Prints a line of progress, and gives the last checkpoint its second name."""

    def __init__(self, trainer: PlainTrainer, progress: Progress):
        cfg = trainer.cfg
        self.trainer = trainer
        self.progress = progress
        self.accuracy = TrainingAccuracy(trainer.model.loss, cfg.TEST.TOPK)
        loader = build_train_loader(cfg, trainer.datasets.train) if cfg.TEST.PRECISE_BN.ENABLED else None
        self.precise_bn = build_precise_bn(cfg, trainer.run_state.wrapped, loader)

    def start(self, storage: EventStorage) -> None:
        self.trainer.run_state.wrapped.train()

    def scalars(self) -> Mapping[str, Tensor]:
        return self.accuracy.read()

    def before_save(self, iteration: int) -> None:
        if self.precise_bn is not None:
            self.precise_bn.update(iteration)

    def read(self, rows: Sequence[IterationScalars]) -> None:
        self.progress.add(rows)

    def line(self, iteration: int) -> None:
        if self.progress.count:  # a resumed run may have nothing to do but an evaluation
            _logger.info(self.progress.line(iteration))

    def saved(self, path: str) -> None:
        self.trainer._link(path)


def _same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _link(path: str, other: str) -> None:
    """Gives a complete file a second name, the one that PyTorch's ImageNet example uses."""
    temporary = f"{path}.link"
    with suppress(FileNotFoundError):  # of a run that was killed right here
        os.unlink(temporary)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)
