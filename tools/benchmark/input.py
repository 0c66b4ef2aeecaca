"""Reading images: files to batches that can be trained on, on one core, against the pipelines of others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from benchmark.configs import classifier_cfg
from benchmark.peers import PEERS, Pipeline
from benchmark.race import Candidate, Table, race, timed
from imgcls.data import build_train_loader
from imgcls.data.sampler import TrainingSampler

BATCH = 64
BATCHES = 2
REFERENCE = "torchvision reference"
OURS = "imgcls"


def race_input(folder: Path, rounds: int, batch: int = BATCH, packed: str | None = None) -> Table:
    """Images/s of one worker on one core.

    In each round all candidates read the same images; only the packed copy has an order of its own.

    Args:
        folder: of classes with JPEG files.
        rounds: measured turns of each candidate.
        batch: images a batch; ``BATCHES`` of them make a turn.
        packed: the name of a packed copy of them.
    """
    pipelines = [our_pipeline(OURS, f"folder:{folder}", batch), *(make(folder) for make in PEERS)]
    if packed is not None:
        pipelines.insert(1, our_pipeline(f"{OURS}, packed", packed, batch))
    candidates = [_candidate(pipeline, batch) for pipeline in pipelines]
    with one_thread():
        return race("one core, decode to batch", candidates, rounds, [REFERENCE])


def our_pipeline(name: str, dataset: str, batch: int) -> Pipeline:
    """What ``build_train_loader`` gives its workers: mapper, derived seeds, collate."""
    cfg = classifier_cfg(0.25, DATASETS__TRAIN=(dataset,), SOLVER__IMS_PER_BATCH=batch, DATALOADER__NUM_WORKERS=0)
    loader = build_train_loader(cfg).loader
    return Pipeline(name, loader.dataset, loader.collate_fn, keys=lambda key: key)


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker of a loader: a process is one core."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class _Order(Sampler[list]):
    """The same endless order of batches for every pipeline."""

    def __init__(self, pipeline: Pipeline, batch: int):
        self.pipeline = pipeline
        self.batch = batch

    def __iter__(self) -> Iterator[list]:
        keys = iter(TrainingSampler(len(self.pipeline.dataset), seed=0))
        while True:
            yield [self.pipeline.keys(next(keys)) for _ in range(self.batch)]


def _candidate(pipeline: Pipeline, batch: int) -> Candidate:
    loader = DataLoader(pipeline.dataset, batch_sampler=_Order(pipeline, batch), collate_fn=pipeline.collate)
    batches = iter(loader)
    return Candidate(pipeline.name, timed(lambda: next(batches), BATCHES), BATCHES * batch)
