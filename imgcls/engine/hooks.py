"""Evaluation and checkpoints of detectron2's trainer, in an order that survives a kill.

A checkpoint is the last thing that an iteration does. All that came before it (its evaluation, its line in
metrics.json) is part of it; all that comes after it is done again by the run that resumes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from detectron2.engine import HookBase
from detectron2.engine import hooks as detectron2_hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from imgcls.data import ClsLoader


class ReadScalars(HookBase):
    """Reads losses before anybody needs them: a line, an evaluation, a checkpoint.

    Args:
        periods: in iterations, of those who need them; 0 never does.
        read: called on all processes.
    """

    def __init__(self, periods: Sequence[int], read: Callable[[], None]):
        self.periods = periods
        self.read = read

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(period > 0 and done % period == 0 for period in self.periods):
            self.read()


class Evaluate(HookBase):
    """Evaluates every ``period`` iterations (0: never) and after the last one; ``trainer.best`` hears of it.

    Args:
        period: in iterations.
        evaluate: gives nested results on the first process; called on all of them.
    """

    def __init__(self, period: int, evaluate: Callable[[], OrderedDict]):
        self.period = period
        self.evaluate = evaluate

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self.period > 0 and done % self.period == 0):
            # Every process must come to the same decision, so every one gets the first one's numbers.
            results = comm.all_gather(flatten_results_dict(self.evaluate() or {}))[0]
            self.trainer.storage.put_scalars(**results, smoothing_hint=False)
            self.trainer.best.update(results, self.trainer.iter)


class PreciseBN(detectron2_hooks.PreciseBN):
    """detectron2's, on the batches that come next: a resumed run takes the same ones as an uninterrupted one."""

    def update_stats(self) -> None:
        if isinstance(self._data_loader, ClsLoader):
            self._data_loader.start_at(self.trainer.iter + 1)
            self._data_iter = None
        super().update_stats()


class WriteLines(detectron2_hooks.PeriodicWriter):
    """detectron2's, which also writes the last line of a run that patience ends, before its checkpoint is there."""

    def after_step(self) -> None:
        super().after_step()
        if self.trainer.best.stop:
            for writer in self._writers:
                writer.write()


class SaveCheckpoints(HookBase):
    """Saves ``model_0001234`` every ``period`` iterations (0: never), ``model_best`` and ``model_final``.

    For the first process; it must be the last hook.

    Args:
        period: in iterations.
    """

    def __init__(self, period: int):
        self.period = period

    def after_step(self) -> None:
        trainer, done = self.trainer, self.trainer.iter + 1
        if trainer.best.iteration == trainer.iter:
            trainer.save("model_best", tag=False)
        if trainer.best.stop or done == trainer.max_iter:
            trainer.save("model_final")
        elif self.period > 0 and done % self.period == 0:
            trainer.save(f"model_{trainer.iter:07d}")
