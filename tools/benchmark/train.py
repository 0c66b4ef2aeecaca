"""Both trainers, with hooks, log and copies, against a bare loop over the same loader."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer

from benchmark.configs import classifier_cfg
from benchmark.race import Candidate, Table, race
from imgcls.data import ClsLoader, build_train_loader
from imgcls.engine import PlainTrainer, Trainer, resolve_from_data

BATCH = 64
WORKERS = 2
# Two lines of the log are among the measured iterations, at the default LOG_PERIOD.
WARM_UP, MEASURED = 10, 40
BARE = "bare loop"


class TimedLoader(ClsLoader):
    """A loader that notes when each batch was asked for: from one to the next is a whole iteration of a trainer."""

    def __init__(self, loader: ClsLoader):
        super().__init__(loader.loader, loader.batch_size, loader.device)
        self.asked: list[float] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = super().__iter__()
        while True:
            self.asked.append(time.perf_counter())
            try:
                yield next(batches)
            except StopIteration:
                return


def race_trainers(
    folder: Path, rounds: int, batch: int = BATCH, warm_up: int = WARM_UP, measured: int = MEASURED, size: int = 224
) -> Table:
    """Images/s at width 0.25, from the images on disk.

    Each turn is a training of its own: start, first iterations and the last checkpoint are not counted.

    Args:
        folder: of classes with JPEG files.
        rounds: measured turns of each candidate.
        batch: images an iteration.
        warm_up: iterations before the measured ones.
        measured: iterations.
        size: side of the input in pixels.
    """

    def candidate(name: str, train: Callable[[CfgNode], TimedLoader]) -> Candidate:
        def run() -> float:
            with tempfile.TemporaryDirectory() as output, _log_into(output):
                cfg = classifier_cfg(
                    0.25,
                    DATASETS__TRAIN=(f"folder:{folder}",),
                    DATASETS__TEST=(),
                    DATALOADER__NUM_WORKERS=WORKERS,
                    SOLVER__IMS_PER_BATCH=batch,
                    SOLVER__BASE_LR=1e-3,
                    SOLVER__MAX_ITER=warm_up + measured + 1,
                    SOLVER__WARMUP_ITERS=0,
                    TEST__EVAL_PERIOD=0,
                    MODEL__CLSNET__INPUT_SIZE=size,
                    MODEL__CLSNET__NUM_CLASSES=-1,
                    OUTPUT_DIR=output,
                )
                resolve_from_data(cfg)
                cfg.freeze()
                asked = train(cfg).asked
            return asked[warm_up + measured] - asked[warm_up]

        return Candidate(name, run, measured * batch)

    candidates = [
        candidate(BARE, _train_bare),
        candidate("imgcls, train_net_builtin.py", _train_builtin),
        candidate("imgcls, train_net.py", _train_plain),
    ]
    return race("training from files, width 0.25", candidates, rounds, [BARE])


def _train_bare(cfg: CfgNode) -> TimedLoader:
    loader = TimedLoader(build_train_loader(cfg))
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    for batch in islice(loader, cfg.SOLVER.MAX_ITER):
        optimizer.zero_grad()
        model(batch)["loss_cls"].backward()
        optimizer.step()
    return loader


def _train_builtin(cfg: CfgNode) -> TimedLoader:
    trainer = _TimedTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer.data_loader


def _train_plain(cfg: CfgNode) -> TimedLoader:
    trainer = PlainTrainer(cfg)
    trainer.loader = TimedLoader(trainer.loader)
    trainer.load()
    trainer.train()
    return trainer.loader


class _TimedTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TimedLoader:
        return TimedLoader(super().build_train_loader(cfg))


@contextmanager
def _log_into(folder: str) -> Iterator[None]:
    """What the entry scripts set up, a stream and log.txt, with the stream going nowhere: the table stays readable."""
    formatter = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s")
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "imgcls")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        handlers = [logging.StreamHandler(nowhere), logging.FileHandler(Path(folder, "log.txt"), encoding="utf-8")]
        for handler in handlers:
            handler.setFormatter(formatter)
            for logger in loggers:
                logger.addHandler(handler)
                logger.setLevel(logging.DEBUG)
                logger.propagate = False
        try:
            yield
        finally:
            for handler in handlers:
                for logger in loggers:
                    logger.removeHandler(handler)
                handler.close()
            for logger, (level, propagate) in zip(loggers, before, strict=True):
                logger.setLevel(level)
                logger.propagate = propagate
