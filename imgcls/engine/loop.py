"""The order of what happens in an iteration, for both trainers.

step -> read scalars -> save -> evaluate -> best -> write the line -> model_best -> patience, end or preemption

A checkpoint is written before the evaluation, so that a damaged image or a full disk costs no trained iteration. The
checkpoint lists what was still to be done in its iteration (``"pending"``), and a resumed run does that first. It then
ends with the same bits as an uninterrupted run.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from detectron2.config import CfgNode
from detectron2.engine.hooks import LRScheduler
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from torch import Tensor

from imgcls.engine.console import TrainingConsole
from imgcls.engine.preempt import EXIT_CODE, Preemption
from imgcls.engine.run_state import RunState
from imgcls.engine.scalars import IterationScalars, Progress, RunStorage, Scalars

WRITE, SAVE, EVALUATE = "write", "save", "evaluate"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What has to be done after which iteration; the same on all ranks.

    Attributes:
        last: the last iteration of the run.
        log_period: iterations between two lines of metrics.json.
        eval_period: iterations between two evaluations; 0 for only one, at the end.
        save_period: iterations between two checkpoints; 0 for only those before an evaluation and at the end.
        evaluates: whether there is a test set.
        eval_epochs: epochs between two further evaluations; 0 for none.
        save_epochs: epochs between two further checkpoints; 0 for none.
        epochs_done: how many epochs are complete if one ends with an iteration, otherwise 0.
    """

    last: int
    log_period: int
    eval_period: int
    save_period: int
    evaluates: bool
    eval_epochs: int = 0
    save_epochs: int = 0
    epochs_done: Callable[[int], int] = lambda iteration: 0

    def due(self, iteration: int) -> set[str]:
        """Which of ``WRITE``, ``SAVE`` and ``EVALUATE`` are due after an iteration; an evaluation includes a save."""
        ends = iteration == self.last
        due = set()
        if ends or _divides(self.log_period, iteration + 1):
            due.add(WRITE)
        if self.evaluates and (ends or self._is_due(self.eval_period, self.eval_epochs, iteration)):
            due |= {EVALUATE, SAVE}
        if not ends and self._is_due(self.save_period, self.save_epochs, iteration):
            due.add(SAVE)  # the last iteration is saved as model_final
        return due

    def _is_due(self, period: int, epochs: int, iteration: int) -> bool:
        done = self.epochs_done(iteration)
        return _divides(period, iteration + 1) or (done > 0 and _divides(epochs, done))


def build_plan(cfg: CfgNode, last: int, epochs_done: Callable[[int], int], every_epoch: bool = False) -> Plan:
    """The plan with the periods of a config.

    Args:
        cfg: of the run.
        last: the last iteration of the run.
        epochs_done: see ``Plan``.
        every_epoch: also save after every epoch if the config gives no epochs for that; and evaluate then if it gives
            neither epochs nor a period.
    """
    eval_epochs, save_epochs = cfg.TEST.EVAL_EPOCHS, cfg.SOLVER.CHECKPOINT_EPOCHS
    eval_period = 0 if eval_epochs else cfg.TEST.EVAL_PERIOD
    save_period = 0 if save_epochs else cfg.SOLVER.CHECKPOINT_PERIOD
    if every_epoch:
        eval_epochs = eval_epochs or int(eval_period == 0)
        save_epochs = save_epochs or 1
    return Plan(
        last=last,
        log_period=cfg.SOLVER.LOG_PERIOD,
        eval_period=eval_period,
        save_period=save_period,
        evaluates=bool(cfg.DATASETS.TEST),
        eval_epochs=eval_epochs,
        save_epochs=save_epochs,
        epochs_done=epochs_done,
    )


class LoopFace:
    """What a trainer adds to the loop: its hooks and what it prints. No method has to be overridden."""

    def start(self, storage: EventStorage) -> None:
        """Called once before the first iteration."""

    def before_step(self, iteration: int) -> None:
        """Called before an iteration."""

    def after_step(self, iteration: int) -> None:
        """Called after the arithmetic of an iteration, before anything is saved."""

    def scalars(self) -> Mapping[str, Tensor]:
        """Further scalars of the iteration that was just finished."""
        return {}

    def before_save(self, iteration: int) -> None:
        """Called before the checkpoint that precedes an evaluation; may update batch norm's statistics."""

    def read(self, rows: Sequence[IterationScalars]) -> None:
        """Gets the scalars of the iterations since the last call, on all ranks."""

    def line(self, iteration: int) -> None:
        """Called on the main process before a line is written."""

    def saved(self, path: str) -> None:
        """Called on the main process after the checkpoint to resume from has changed."""

    def end(self) -> None:
        """Called once at the end, also after an exception."""


class Loop:
    """Trains from ``first`` to the last iteration of a plan.

    Args:
        run: everything that is saved and resumed.
        plan: what is due when.
        run_step: trains one iteration; returns losses (scalars by name) and the seconds spent waiting for data.
        evaluate: called on all ranks; returns nested results on the main process.
        face: what the trainer adds.
        writers: write the scalars, on the main process.
        progress: shows the progress of a classifier; None shows nothing.
    """

    def __init__(
        self,
        run: RunState,
        plan: Plan,
        *,
        run_step: Callable[[int], tuple[Mapping[str, Tensor], float] | None],
        evaluate: Callable[[], OrderedDict],
        face: LoopFace,
        writers: Iterable[EventWriter] = (),
        progress: Progress | None = None,
    ):
        self.run_state = run
        self.plan = plan
        self.run_step = run_step
        self.evaluate = evaluate
        self.face = face
        self.writers = list(writers)
        self.progress = progress
        self._console: TrainingConsole | None = None
        self.results: OrderedDict = OrderedDict()
        self._scalars = Scalars()
        self._busy = 0.0  # seconds spent on anything but training

    def run(self) -> OrderedDict:
        """Trains, and returns the results of the last evaluation (main process).

        Raises:
            SystemExit: with ``EXIT_CODE``, after SIGTERM or SIGUSR1 and a checkpoint.
            FloatingPointError: a loss is not finite.
        """
        run, first = self.run_state, self.run_state.first
        if not run.pending and (first > self.plan.last or run.best.stop):
            _logger.info("nothing is left to train: this run ended at iteration %d", first - 1)
            return self.results
        with Preemption() as preemption, RunStorage(first) as storage:
            self._storage = storage
            run.log.start(storage)
            self.face.start(storage)
            if self.progress is not None:
                self._console = TrainingConsole(self.progress, first)
            begin = time.perf_counter()
            try:
                if run.pending:
                    _logger.info("iteration %d: %s comes first", first - 1, " and ".join(sorted(run.pending)))
                    storage.iter = first - 1
                    self._finish(first - 1, set(run.pending))
                if first <= self.plan.last and not run.best.stop:
                    _logger.info("training iterations %d to %d", first, self.plan.last)
                    self._train(first, preemption)
            finally:
                if self._console is not None:
                    self._console.close()
                self.face.end()
                for writer in self.writers:
                    with suppress(OSError):  # must not replace an exception that is already propagating
                        writer.close()
            seconds = time.perf_counter() - begin
            _logger.info(
                "Total training time: %s (%s on evaluation and checkpoints)",
                timedelta(seconds=round(seconds)),
                timedelta(seconds=round(self._busy)),
            )
        return self.results

    def _train(self, first: int, preemption: Preemption) -> None:
        for iteration in range(first, self.plan.last + 1):
            self._step(iteration)
            due = self.plan.due(iteration)
            leaves = preemption.requested(check_other_ranks=bool(due))
            if due or leaves:
                self._read()
                begin = time.perf_counter()
                self._conclude(iteration, due, leaves)
                self._busy += time.perf_counter() - begin
            if self.run_state.best.stop:
                return

    def _step(self, iteration: int) -> None:
        self._storage.iter = iteration
        self.face.before_step(iteration)
        start = time.perf_counter()
        outcome = self.run_step(iteration)
        optimizer = self.run_state.optimizer
        lr = optimizer.param_groups[LRScheduler.get_best_param_group_id(optimizer)]["lr"]
        self._storage.put_scalar("lr", lr, smoothing_hint=False)
        self.run_state.scheduler.step()
        if outcome is not None:  # a user's own step may report nothing
            losses, data_time = outcome
            seconds = time.perf_counter() - start
            self._scalars.add(iteration, losses, self.face.scalars(), time=seconds, data_time=data_time)
        if self._console is not None:
            self._console.advance()
        self.face.after_step(iteration)

    def _read(self) -> None:
        begin = time.perf_counter()
        self.run_state.step.finite.check()
        rows = self._scalars.read(self._storage, begin)
        if self._console is not None:
            self._console.read(rows)
        self.face.read(rows)

    def _conclude(self, iteration: int, due: set[str], leaves: bool) -> None:
        """Saves and evaluates what is due, or saves and leaves."""
        pending = due - {SAVE}
        if EVALUATE in due:
            self.face.before_save(iteration)
        leaves = leaves and (iteration < self.plan.last or EVALUATE in due)
        if SAVE in due or leaves:
            self._save(f"model_{iteration:07d}", iteration, pending)
        if leaves:
            comm.synchronize()  # until the checkpoint is complete
            raise SystemExit(EXIT_CODE)
        self._finish(iteration, pending)

    def _finish(self, iteration: int, due: set[str]) -> None:
        """Does what follows the checkpoint of an iteration: evaluation, line, and model_best and model_final."""
        best = self.run_state.best
        if EVALUATE in due:
            self.results = self.evaluate()
            # All ranks must come to the same decision, so all get the numbers of the main process.
            flat = comm.all_gather(flatten_results_dict(self.results or {}))[0]
            self._storage.put_scalars(**flat, smoothing_hint=False)
            self._storage.results = flat
            best.update(flat, iteration)
            if self._console is not None:
                self._console.evaluated(iteration, flat, best)
        ends = iteration == self.plan.last or best.stop
        if WRITE in due or ends:
            self._write(iteration)
        if EVALUATE in due and best.iteration == iteration:
            self._save("model_best", iteration, tag=False)
        if ends:
            self._save("model_final", iteration)

    def _write(self, iteration: int) -> None:
        if comm.is_main_process():
            self.face.line(iteration)
            for writer in self.writers:
                writer.write()
        self.run_state.log.written = iteration

    def _save(self, name: str, iteration: int, pending: Collection[str] = (), tag: bool = True) -> None:
        if comm.is_main_process():
            path = self.run_state.save(name, iteration, sorted(pending), tag=tag)
            if tag:
                self.face.saved(path)


def _divides(period: int, done: int) -> bool:
    return period > 0 and done % period == 0
