"""From image files to training batches: one core, and the whole loader with its workers, against other pipelines."""

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from benchmark.compare import Budget, Candidate, Table, compare, timed
from benchmark.configs import train_loader
from benchmark.machine import count_open_files, memory
from benchmark.peers import PEERS, Pipeline, require_timm, torchvision_reference
from benchmark.quality import compare_pixels
from benchmark.report import Report
from benchmark.sample_images import describe_images, find_images, packed_images
from imgcls.data import ClsLoader
from imgcls.data.sampler import TrainingSampler

BATCH = 64
# Batches per run: of one core, and of the whole loader.
BATCHES = 2
LOADER_BATCHES = 16
WORKERS = 2
REFERENCE = "torchvision reference"
OURS = "imgcls"
ONE_CORE = "imgcls, one core x 2"
# Batches that may be finished before they are requested: torch prefetches two per worker, one more may be under way.
_PREFETCHED = 2 * WORKERS + 1


def measure(args: argparse.Namespace) -> Report:
    """Measures one core, the whole loader, and the accuracy of the pixels; with ``args.soak`` also leaks.

    Raises:
        UserError: timm or webdataset is not installed, or the images cannot be used.
    """
    require_timm()
    budget = Budget(args.rounds, 60 * args.minutes, 2)
    folder = find_images(args.data)
    with packed_images(folder) as packed:
        report = Report("input", [compare_input(folder, budget, packed=packed)])
    report.tables.append(compare_loaders(folder, budget))
    report.facts |= describe_images(folder) | compare_pixels(folder)
    if args.soak:
        report.facts |= soak_loader(folder, args.soak)
    return report


def compare_input(folder: Path, budget: Budget, batch: int = BATCH, packed: str | None = None) -> Table:
    """Compares the images/s of one worker on one core.

    In each round all candidates read the same images, except that the packed copy (a dataset name) has its own order.
    """
    pipelines = [our_pipeline(OURS, f"folder:{folder}", batch), *(make(folder) for make in PEERS)]
    if packed is not None:
        pipelines.insert(1, our_pipeline(f"{OURS}, packed", packed, batch))
    candidates = [_candidate(pipeline, batch) for pipeline in pipelines]
    with one_thread():
        return compare("one core, decode to batch", candidates, budget, [REFERENCE])


def compare_loaders(folder: Path, budget: Budget, batch: int = BATCH) -> Table:
    """Compares the images/s that two workers deliver to the training process with twice those of one core.

    Each run starts its workers, discards the prefetched batches and measures the following ones.
    """
    ours = train_loader(f"folder:{folder}", batch, WORKERS)
    one = train_loader(f"folder:{folder}", batch, workers=0)
    reference = torchvision_reference(folder)
    theirs = DataLoader(
        reference.dataset, batch, shuffle=True, num_workers=WORKERS, collate_fn=reference.collate, drop_last=True
    )
    amount = LOADER_BATCHES * batch
    candidates = [
        # Half the time for the same images is what two independent cores would need.
        Candidate(ONE_CORE, lambda: _time(one, prefetched=0) / WORKERS, amount),
        Candidate(f"{OURS}, {WORKERS} workers", lambda: _time(ours), amount),
        Candidate(f"{reference.name}, {WORKERS} workers", lambda: _time(theirs), amount),
    ]
    with one_thread():
        return compare("whole loader to the training process", candidates, budget, [ONE_CORE])


def soak_loader(folder: Path, batches: int, batch: int = BATCH) -> dict[str, str | int | float]:
    """Counts open files and memory (PSS) of all processes, after a tenth of ``batches`` and after all of them."""
    facts: dict[str, str | int | float] = {"soak, batches": batches}
    others = {child.pid for child in multiprocessing.active_children()}
    loader = iter(train_loader(f"folder:{folder}", batch, WORKERS))
    for when, count in (("early", max(1, batches // 10)), ("late", batches - max(1, batches // 10))):
        for _ in islice(loader, count):
            pass
        workers = {child.pid for child in multiprocessing.active_children() if child.pid} - others
        processes = [os.getpid(), *workers]
        facts[f"soak, processes, {when}"] = len(processes)
        facts[f"soak, open files, {when}"] = count_open_files(processes)
        facts[f"soak, PSS in MB, {when}"] = round(sum(memory(pid)["pss"] for pid in processes), 1)
    return facts


def our_pipeline(name: str, dataset: str, batch: int) -> Pipeline:
    """Returns what our training loader gives its workers: mapper, derived seeds, collate."""
    loader = train_loader(dataset, batch, workers=0).loader
    return Pipeline(name, loader.dataset, loader.collate_fn, keys=lambda key: key)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch and OpenCV to one thread, as in a worker of a loader."""
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


def _time(loader: ClsLoader | DataLoader, prefetched: int = _PREFETCHED) -> float:
    batches = _endless(loader)
    for _ in islice(batches, prefetched):
        pass
    start = perf_counter()
    for _ in islice(batches, LOADER_BATCHES):
        pass
    return perf_counter() - start


def _endless(loader: ClsLoader | DataLoader) -> Iterator[Any]:
    while True:
        yield from loader
