"""Loads a JSON of records in a new process and prints what that cost; ``index`` starts it."""

import json
import os
import sys
import time
from collections.abc import Sequence
from statistics import median

from detectron2.data import DatasetFromList
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmark.configs import classifier_cfg
from benchmark.memory import memory, peak_memory, reset_peak
from imgcls.data import build_train_loader
from imgcls.engine import resolve_from_data

WORKERS = 2
# Records that each worker reads, anywhere in the set.
READ = 50_000


class _Read(Dataset):
    """Reads a record in the worker and tells what the worker holds by then."""

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
    """What a detectron2 project does: the whole file at once, then serialised for the workers."""
    with open(path, encoding="utf-8") as file:
        return DatasetFromList(json.load(file), copy=False)


def load_with_imgcls(path: str) -> Sequence[dict]:
    """What both of our trainers do before the first iteration: class count and labels, then the loader."""
    cfg = classifier_cfg(0.25, DATASETS__TRAIN=(f"json:{path}",), DATASETS__TEST=(), MODEL__CLSNET__NUM_CLASSES=-1)
    resolve_from_data(cfg)
    return build_train_loader(cfg).loader.dataset.records


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
    """USS of a worker at its end, in MB."""
    sampler = RandomSampler(records, replacement=True, num_samples=WORKERS * READ)
    loader = DataLoader(_Read(records), 1000, sampler=sampler, num_workers=WORKERS, collate_fn=lambda told: told[0])
    last = dict(iter(loader))
    return median(last.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
