"""Everything that a run saves and resumes together: model, optimizer, schedule, average, best result and log."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imgcls.checkpoint import RunCheckpointer
from imgcls.engine.step import build_step, wrap_ddp
from imgcls.errors import UserError
from imgcls.solver import apply_schedule, build_ema, read_options

WINDOW = 20  # detectron2's writers give medians over this many values
# Durations that were measured by one process; a resumed run does not inherit them.
_OF_THE_PROCESS = {"time", "data_time", "rank_data_time", "eta_seconds"}

_logger = logging.getLogger(__name__)


class BestTracker:
    """Remembers the best value of one metric; larger is better.

    Args:
        metric: a name in the results, or "" for the first one there.
        patience: evaluations in a row without a better value after which to stop; 0 never stops.

    Attributes:
        value: the best so far, -inf before the first.
        iteration: the iteration of the best value, -1 before the first.
        waited: evaluations since then.
    """

    def __init__(self, metric: str = "", patience: int = 0):
        self.metric = metric
        self.patience = patience
        self.value, self.iteration, self.waited = -math.inf, -1, 0

    def update(self, results: Mapping[str, float], iteration: int) -> bool:
        """Returns whether the results of an iteration are the best so far; NaN never is. Empty results change nothing.

        Raises:
            UserError: the metric is not among the results.
        """
        if not results:
            return False
        name = self.metric or next(iter(results))
        if name not in results:
            raise UserError(f"TEST.BEST_METRIC is {name!r}; the evaluation gives {', '.join(results)}")
        if results[name] > self.value:
            self.value, self.iteration, self.waited = results[name], iteration, 0
            return True
        self.waited += 1
        if self.stop:
            _logger.info(
                "stopping: %s was best with %.4f at iteration %d, %d evaluations ago (TEST.PATIENCE)",
                name, self.value, self.iteration, self.waited,
            )  # fmt: skip
        return False

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"value": self.value, "iteration": self.iteration, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.value, self.iteration, self.waited = state["value"], state["iteration"], state["waited"]


class RunLog:
    """The past values that metrics.json depends on, so that a resumed run writes the lines of an uninterrupted one.

    Attributes:
        path: metrics.json in the run's folder.
        written: the iteration of the last line, -1 before the first.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, "metrics.json")
        self.written = -1
        self.storage = EventStorage(0)
        self._loaded: Mapping[str, Any] | None = None
        self._truncates = True

    def start(self, storage: EventStorage) -> None:
        """Fills the storage of a run with the loaded values, and removes the lines written after the checkpoint."""
        self.storage = storage
        if self._loaded is None:
            return
        size = self._loaded["bytes"]
        # Only the process that writes the lines: a slower one could remove those that were written since.
        truncates = self._truncates and comm.is_main_process()
        if truncates and os.path.isfile(self.path) and os.path.getsize(self.path) > size:
            os.truncate(self.path, size)
        first = storage.iter
        for name, smoothed, values in self._loaded["scalars"]:
            for value, iteration in values:
                storage.iter = iteration
                storage.put_scalar(name, value, smoothing_hint=smoothed)
        storage.iter = first
        self._loaded = None

    def keep_lines(self) -> None:
        """Makes ``start`` leave metrics.json as it is, because the checkpoint is from a run in another folder."""
        self._truncates = False

    def state_dict(self) -> dict[str, Any]:
        """The values that later lines need: those to be smoothed, and those that no line contains yet."""
        hints, histories, latest = self.storage.smoothing_hints(), self.storage.histories(), self.storage.latest()
        # The writer orders a line by when each name first came up, which would differ in a resumed run. So the order
        # is fixed here: smoothed names first, as in an uninterrupted run.
        names = sorted(histories.keys() - _OF_THE_PROCESS, key=lambda name: (not hints[name], name))
        scalars = [
            [name, hints[name], [list(value) for value in histories[name].values()[-WINDOW if hints[name] else -1 :]]]
            for name in names
            if hints[name] or latest[name][1] > self.written
        ]
        size = os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        return {"scalars": scalars, "bytes": size, "written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self._loaded = state
        self.written = state.get("written", -1)  # checkpoints of version 0.1.0 have none


class RunState:
    """Model, optimizer, schedule, averaged weights, best result and log of a run.

    Args:
        cfg: the config of the run.
        model: on its device, not wrapped in DDP.
        optimizer: of the model's parameters.
        scheduler: of the optimizer.
        build_checkpointer: called with the wrapped model and, as keyword arguments, the other objects with a state.
        num_images: size of a classifier's training set.

    Attributes:
        first: the iteration to start with.
        resumed: whether the run continues from a checkpoint in its own folder.
        pending: the steps of the loop that a resumed run still has to do for the iteration before ``first``.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        build_checkpointer: Callable[..., RunCheckpointer],
        num_images: int = 0,
    ):
        self.weights = cfg.MODEL.WEIGHTS
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.ema = build_ema(cfg, model)
        self.wrapped = wrap_ddp(model, partly=cfg.SOLVER.HEAD_ONLY_EPOCHS > 0)
        self.step = build_step(cfg, self.wrapped, optimizer, self.ema, num_images)
        self.best = BestTracker(cfg.TEST.BEST_METRIC, cfg.TEST.PATIENCE)
        self.log = RunLog(cfg.OUTPUT_DIR)
        parts = {"optimizer": optimizer, "scheduler": scheduler, "best": self.best, "log": self.log}
        if self.ema is not None:
            parts["ema"] = self.ema
        if self.step.scaler.is_enabled():
            parts["grad_scaler"] = self.step.scaler
        self.checkpointer = build_checkpointer(self.wrapped, **parts)
        self.first = 0
        self.resumed = False
        self.pending: Sequence[str] = ()

    def load(self) -> None:
        """Loads ``MODEL.WEIGHTS`` for a new run; loads nothing if it is empty."""
        self.checkpointer.resume_or_load(self.weights, resume=False)

    def resume(self, path: str = "") -> bool:
        """Resumes from a checkpoint, or from the last one of a folder; the config's schedule applies from there on.

        An empty path means the run's own folder, where a missing checkpoint starts a new run.

        Returns:
            Whether a checkpoint was resumed.
        """
        options, base_lrs = read_options(self.optimizer), list(map(float, self.scheduler.base_lrs))
        checkpointer = self.checkpointer
        rest = checkpointer.resume_from(path) if path else checkpointer.resume_or_load(self.weights, resume=True)
        if "iteration" not in rest:  # a new run
            return False
        apply_schedule(self.optimizer, self.scheduler, options, base_lrs)
        self.first = rest["iteration"] + 1
        self.pending = rest.get("pending", ())
        self.resumed = checkpointer.resumed_in_place
        if not self.resumed:
            self.log.keep_lines()
        return True

    def start_at(self, iteration: int) -> None:
        """Starts a new run in the middle of its schedule."""
        options, base_lrs = read_options(self.optimizer), list(map(float, self.scheduler.base_lrs))
        self.first = self.scheduler.last_epoch = iteration
        apply_schedule(self.optimizer, self.scheduler, options, base_lrs)

    def save(self, name: str, iteration: int, pending: Sequence[str], tag: bool = True) -> str:
        """Writes the checkpoint ``name`` of a finished iteration and returns its path; see ``RunCheckpointer.save``.

        ``pending`` names the steps of the loop that are still to be done for this iteration.
        """
        self.checkpointer.save(name, tag=tag, iteration=iteration, pending=list(pending))
        return os.path.join(self.checkpointer.save_dir, f"{name}.pth")
