"""The whole loader with its workers, to the training process."""

import multiprocessing
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from torch.utils.data import DataLoader

from benchmark.configs import classifier_cfg
from benchmark.input import BATCH, OURS, one_thread
from benchmark.memory import memory, open_files
from benchmark.peers import torchvision_reference
from benchmark.race import Candidate, Table, race
from imgcls.data import ClsLoader, build_train_loader

WORKERS = 2
BATCHES = 16
SHARE = "imgcls, one core x 2"
# What is ready before anybody asks: torch's loaders keep two batches a worker, and one may be half done.
_AHEAD = 2 * WORKERS + 1


def race_loader(folder: Path, rounds: int, batch: int = BATCH, dataset: str = "") -> Table:
    """Images/s that reach the training process from two workers, beside twice those of one core.

    Each turn starts its workers, takes what they have read ahead and measures from there.

    Args:
        folder: of classes with JPEG files.
        rounds: measured turns of each candidate.
        batch: images a batch.
        dataset: a name for ``DATASETS.TRAIN`` to read instead of the folder.
    """
    name = dataset or f"folder:{folder}"
    ours = _build(name, batch)
    one = _build(name, batch, workers=0)
    reference = torchvision_reference(folder)
    theirs = DataLoader(
        reference.dataset, batch, shuffle=True, num_workers=WORKERS, collate_fn=reference.collate, drop_last=True
    )
    candidates = [
        # Half the time for the same images: what two such cores would need.
        Candidate(SHARE, lambda: _time(one, ahead=0) / WORKERS, BATCHES * batch),
        Candidate(f"{OURS}, {WORKERS} workers", lambda: _time(ours), BATCHES * batch),
        Candidate(f"{reference.name}, {WORKERS} workers", lambda: _time(theirs), BATCHES * batch),
    ]
    with one_thread():
        return race("whole loader to the training process", candidates, rounds, [SHARE])


def soak_loader(folder: Path, batches: int, batch: int = BATCH) -> dict[str, str | int | float]:
    """Open files and memory (PSS) of all processes together, after a tenth of ``batches`` and after all of them."""
    told: dict[str, str | int | float] = {"soak, batches": batches}
    loader = iter(_build(f"folder:{folder}", batch))
    for when, count in (("early", max(1, batches // 10)), ("late", batches - max(1, batches // 10))):
        for _ in islice(loader, count):
            pass
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        told[f"soak, processes, {when}"] = len(processes)
        told[f"soak, open files, {when}"] = open_files(processes)
        told[f"soak, PSS in MB, {when}"] = round(sum(memory(pid)["pss"] for pid in processes), 1)
    return told


def _build(dataset: str, batch: int, workers: int = WORKERS) -> ClsLoader:
    changes: dict[str, Any] = {"DATASETS__TRAIN": (dataset,), "DATALOADER__NUM_WORKERS": workers}
    return build_train_loader(classifier_cfg(0.25, SOLVER__IMS_PER_BATCH=batch, **changes))


def _time(loader: ClsLoader | DataLoader, ahead: int = _AHEAD) -> float:
    batches = _endless(loader)
    for _ in islice(batches, ahead):
        pass
    start = perf_counter()
    for _ in islice(batches, BATCHES):
        pass
    return perf_counter() - start


def _endless(loader: ClsLoader | DataLoader) -> Iterator[Any]:
    while True:
        yield from loader
