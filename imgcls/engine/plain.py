"""The second trainer: one loop in plain PyTorch, around the model, data, step and evaluation of the first one.

It prints what PyTorch's ImageNet example prints, evaluates and saves at the end of every epoch, and writes the same
metrics.json and the same checkpoints as ``Trainer``: with one config, the two do the same arithmetic.
"""

import logging
import os
import shutil
import time
from collections import OrderedDict
from contextlib import suppress

from detectron2.config import CfgNode
from detectron2.engine.hooks import LRScheduler
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, JSONWriter

from imgcls.data import build_train_loader
from imgcls.engine.build import build_checkpointer, checkpointables, evaluate_with_ema, wrap_ddp
from imgcls.engine.preempt import EXIT_CODE, Preemption
from imgcls.engine.run_state import BestTracker, RunLog
from imgcls.engine.scalars import Progress, Scalars, TrainingAccuracy
from imgcls.engine.step import build_step
from imgcls.engine.trainer import Trainer
from imgcls.solver import apply_schedule, build_ema, iterations, read_options

_logger = logging.getLogger(__name__)


class PlainTrainer:
    """Trains a ``ClsNet``.

    Args:
        cfg: checked, with everything resolved (``engine.setup``).

    Attributes:
        first: the iteration that ``train`` starts with.
        results: of the last evaluation, on the first process.
    """

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        self.model = build_model(cfg)
        self.optimizer = build_optimizer(cfg, self.model)
        self.ema = build_ema(cfg, self.model)
        replica = wrap_ddp(self.model)
        self.loader = build_train_loader(cfg)
        self.step = build_step(cfg, replica, self.optimizer, self.ema)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        self.best = BestTracker(cfg.TEST.BEST_METRIC, cfg.TEST.PATIENCE)
        self.log = RunLog(cfg.OUTPUT_DIR, cfg.SOLVER.LOG_PERIOD)
        parts = checkpointables(self.optimizer, self.scheduler, self.step, self.best, self.log)
        self.checkpointer = build_checkpointer(cfg, replica, **parts)
        self.first = 0
        self.results = OrderedDict()

    def load(self, resume: str = "", start_epoch: int = 0) -> None:
        """Chooses what to start from.

        Args:
            resume: a checkpoint of either trainer to go on from, or a folder of them; empty for ``MODEL.WEIGHTS``.
            start_epoch: epoch of the schedule and of the data to start in, without ``resume``.
        """
        options, base_lrs = read_options(self.optimizer), self.scheduler.base_lrs
        if resume:
            self.first = self.checkpointer.resume_from(resume)["iteration"] + 1
            self._link(self.checkpointer.source)  # a kill may have come before it
        else:
            self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=False)
            self.first = iterations(start_epoch, self.loader.num_images, self.loader.batch_size)
            self.scheduler.last_epoch = self.first
        apply_schedule(self.optimizer, self.scheduler, options, base_lrs)
        self.loader.start_at(self.first)

    def train(self) -> OrderedDict:
        """Trains to the end, or until patience is, and gives ``results``.

        Raises:
            SystemExit: with ``preempt.EXIT_CODE``, after SIGTERM or SIGUSR1 and a checkpoint.
            FloatingPointError: the loss is not finite.
        """
        if self.first >= self.cfg.SOLVER.MAX_ITER or self.best.stop:
            _logger.info("nothing is left to train: this run ended at iteration %d", self.first - 1)
            return self.results
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        with Preemption() as preemption, EventStorage(self.first) as storage:
            self.log.start(storage)
            self._loop(storage, preemption)
        return self.results

    def _loop(self, storage: EventStorage, preemption: Preemption) -> None:
        solver, last = self.cfg.SOLVER, self.cfg.SOLVER.MAX_ITER - 1
        writer = JSONWriter(self.log.path) if comm.is_main_process() else None
        accuracy = TrainingAccuracy(self.model.loss, self.cfg.TEST.TOPK)
        scalars = Scalars()
        progress = Progress(self.loader.num_images, self.loader.batch_size, last)
        batches = iter(self.loader)
        self.step.model.train()

        def read() -> None:
            self.step.finite.check()
            progress.add(scalars.read(storage))

        for iteration in range(self.first, last + 1):
            storage.iter = iteration
            start = time.perf_counter()
            losses, waited = self.step(batches, iteration)
            storage.put_scalar("lr", self._lr(), smoothing_hint=False)
            self.scheduler.step()
            scalars.add(iteration, losses, accuracy.read(), data_time=waited, time=time.perf_counter() - start)

            epoch_ends, ends = progress.epoch_ends(iteration), iteration == last
            evaluates = ends or _due(iteration, self.cfg.TEST.EVAL_PERIOD, epoch_ends)
            writes = ends or _due(iteration, solver.LOG_PERIOD)
            saves = ends or epoch_ends or _due(iteration, solver.CHECKPOINT_PERIOD)
            if evaluates or writes or saves:
                read()
            if evaluates:
                self._evaluate(storage, iteration)
            if writer and (writes or self.best.stop):
                _logger.info(progress.line(iteration))
                writer.write()

            # A checkpoint is the last thing that an iteration does: what came before it is never done again.
            leaves = preemption.requested()
            if leaves:
                read()
            if self.best.iteration == iteration:
                self._save("model_best", iteration, tag=False)
            if saves or leaves or self.best.stop:
                self._save(f"model_{iteration:07d}", iteration)
            if self.best.stop:
                break
            if leaves and not ends:
                comm.synchronize()
                raise SystemExit(EXIT_CODE)

    def _lr(self) -> float:
        return self.optimizer.param_groups[LRScheduler.get_best_param_group_id(self.optimizer)]["lr"]

    def _evaluate(self, storage: EventStorage, iteration: int) -> None:
        self.results = evaluate_with_ema(Trainer, self.cfg, self.step.model, self.ema)
        # Every process must come to the same decision, so every one gets the first one's numbers.
        flat = comm.all_gather(flatten_results_dict(self.results))[0]
        storage.put_scalars(**flat, smoothing_hint=False)
        self.best.update(flat, iteration)

    def _save(self, name: str, iteration: int, tag: bool = True) -> None:
        if comm.is_main_process():
            self.checkpointer.save(name, tag=tag, iteration=iteration)
            if tag:
                self._link(os.path.join(self.checkpointer.save_dir, f"{name}.pth"))

    def _link(self, path: str) -> None:
        """Makes ``checkpoint.pth`` a second name of a file of the run's folder."""
        other = os.path.join(self.checkpointer.save_dir, "checkpoint.pth")
        here = os.path.realpath(os.path.dirname(path)) == os.path.realpath(self.checkpointer.save_dir)
        if comm.is_main_process() and here and not (os.path.exists(other) and os.path.samefile(path, other)):
            _link(path, other)


def _due(iteration: int, period: int, otherwise: bool = False) -> bool:
    return (iteration + 1) % period == 0 if period > 0 else otherwise


def _link(path: str, other: str) -> None:
    """A second name for a file that is whole, by which PyTorch's users look for it."""
    temporary = f"{path}.link"
    with suppress(FileNotFoundError):  # of a run that was killed right here
        os.unlink(temporary)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without second names
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)
