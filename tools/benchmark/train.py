"""Both trainers, with hooks, log and copies to the device, against a bare loop over the same loader."""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer

from benchmark.compare import Budget, Candidate, Table, compare
from benchmark.configs import builtin_trainer, classifier_cfg, plain_trainer, resolved_loader
from benchmark.report import Report
from benchmark.sample_images import find_images
from imgcls.data import ClsLoader

BATCH = 32
WORKERS = 2
# The unmeasured iterations use up what the workers have prefetched. At the default LOG_PERIOD, two lines of the log
# fall into the measured ones.
WARM_UP, MEASURED = 6, 40
BARE = "bare loop"


@contextmanager
def request_times() -> Iterator[list[float]]:
    """Notes when each batch of a ``ClsLoader`` is requested; two requests are one iteration of a trainer apart."""
    times: list[float] = []
    original = ClsLoader.__iter__

    def timed(loader: ClsLoader) -> Iterator[dict[str, Any]]:
        batches = original(loader)
        while True:
            times.append(time.perf_counter())
            try:
                yield next(batches)
            except StopIteration:
                return

    with patch.object(ClsLoader, "__iter__", timed):
        yield times


def measure(args: argparse.Namespace) -> Report:
    """Measures both trainers.

    Raises:
        UserError: the images cannot be used.
    """
    budget = Budget(args.rounds, 60 * args.minutes)
    return Report("train", [compare_trainers(find_images(args.data), budget)])


def compare_trainers(
    folder: Path, budget: Budget, batch: int = BATCH, warm_up: int = WARM_UP, measured: int = MEASURED, size: int = 224
) -> Table:
    """Compares images/s at width 0.25, reading the images from disk.

    Each run is a complete training; start-up, ``warm_up`` iterations and the final checkpoint are not counted.
    """

    def candidate(name: str, train: Callable[[CfgNode], object]) -> Candidate:
        def run() -> float:
            with tempfile.TemporaryDirectory() as output, _log_to_file(output), request_times() as requests:
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
                train(cfg)
            return requests[warm_up + measured] - requests[warm_up]

        return Candidate(name, run, measured * batch)

    candidates = [
        candidate(BARE, _train_bare),
        candidate("imgcls, train_net_builtin.py", lambda cfg: builtin_trainer(cfg).train()),
        candidate("imgcls, train_net.py", lambda cfg: plain_trainer(cfg).train()),
    ]
    # Every run warms up on its own.
    return compare("training from files, width 0.25", candidates, budget, [BARE], warm_up=False)


def _train_bare(cfg: CfgNode) -> None:
    loader = resolved_loader(cfg)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    for batch in islice(loader, cfg.SOLVER.MAX_ITER):
        optimizer.zero_grad()
        model(batch)["loss_cls"].backward()
        optimizer.step()


@contextmanager
def _log_to_file(folder: str) -> Iterator[None]:
    """Logs like the entry scripts, to a stream and to log.txt, but discards the stream to keep the table readable."""
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
