"""Loads a JSON file of records in its own process and prints what that costs; started by ``benchmark.index``."""

import json
import os
import sys
import time
from collections.abc import Sequence
from statistics import median

from detectron2.data import DatasetFromList
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmark.configs import classifier_cfg, resolved_loader
from benchmark.machine import memory, peak_memory, reset_peak

WORKERS = 2
# Records that each worker reads, at random places of the set.
READ = 50_000


class _WorkerMemory(Dataset):
    """Reads records in a worker and returns the worker's process id and memory."""

    def __init__(self, records: Sequence[dict]):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, indices: list[int]) -> list[tuple[int, float]]:
        for index in indices:
            if not self.records[index]["file_name"]:
                raise ValueError(f"record {index} has no file name")
        return [(os.getpid(), memory(os.getpid())["uss"])]


def load_with_detectron2(path: str) -> Sequence[dict]:
    """Loads the records as detectron2 projects do: the whole file at once, then serialised for the workers."""
    with open(path, encoding="utf-8") as file:
        return DatasetFromList(json.load(file), copy=False)


def load_with_imgcls(path: str) -> Sequence[dict]:
    """Loads the records as both of our trainers do before the first iteration: checked, then as a loader."""
    cfg = classifier_cfg(0.25, DATASETS__TRAIN=(f"json:{path}",), DATASETS__TEST=(), MODEL__CLSNET__NUM_CLASSES=-1)
    return resolved_loader(cfg).loader.dataset.records


def main(how: str, path: str) -> None:
    """Prints seconds and MB as one line of JSON."""
    load = {"detectron2": load_with_detectron2, "imgcls": load_with_imgcls}[how]
    reset_peak()
    pid = os.getpid()
    before, low = memory(pid), peak_memory(pid)
    start = time.perf_counter()
    records = load(path)
    seconds = time.perf_counter() - start
    kept, peak = memory(pid)["pss"] - before["pss"], peak_memory(pid) - low
    print(json.dumps({"seconds": seconds, "kept": kept, "peak": peak, "worker": _worker_memory(records)}))


def _worker_memory(records: Sequence[dict]) -> float:
    """Memory (USS) of a worker after its last record, in MB."""
    sampler = RandomSampler(records, replacement=True, num_samples=WORKERS * min(READ, len(records)))
    loader = DataLoader(
        _WorkerMemory(records), 1000, sampler=sampler, num_workers=WORKERS, collate_fn=lambda results: results[0]
    )
    last = dict(iter(loader))
    return median(last.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
