"""Stacked batches from mapped records."""

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Sampler

from imgcls.data.catalog import get_dataset, get_datasets
from imgcls.data.dataset import StoredRecords
from imgcls.data.mapper import ClsDatasetMapper, MappedDataset
from imgcls.data.sampler import ShardSampler, TrainingSampler
from imgcls.data.shards.reader import ShardRecords
from imgcls.errors import UserError
from imgcls.structures import stack

_logger = logging.getLogger(__name__)
_logged: set[str] = set()


class ClsLoader:
    """A torch ``DataLoader`` that reports images which could not be read.

    Nothing starts before the first batch is asked for, so that a resumed run can still say where to begin.

    Args:
        loader: gives batches of ``collate``.
        batch_size: of all processes together, for ``start_at``.
        device: that batches are brought to ahead of time, where it is a GPU.
    """

    def __init__(self, loader: DataLoader, batch_size: int, device: torch.device | None = None):
        self.loader = loader
        self.batch_size = batch_size
        self.device = device or torch.device("cpu")
        self.bad_images: set[str] = set()

    @property
    def num_images(self) -> int:
        """Records in the dataset, whatever this process sees of them."""
        return len(self.loader.dataset)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from prefetch(self._batches(), self.device)

    def start_at(self, iteration: int) -> None:
        """Makes the next iterator begin at the batch of ``iteration``, without reading what lies before it."""
        sampler = self.loader.batch_sampler.sampler
        if isinstance(sampler, TrainingSampler):
            sampler.first_position = iteration * self.batch_size

    def _batches(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader:
            self._report(batch.pop("bad_images"))
            if batch:
                yield batch

    def _report(self, messages: Sequence[str]) -> None:
        for message in messages:
            if message not in self.bad_images:
                self.bad_images.add(message)
                # A set is evaluated many times by loaders of their own; its files are logged by the first one.
                if message not in _logged:
                    _logged.add(message)
                    _logger.warning("left out, bad image number %d: %s", len(self.bad_images), message)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of ``MappedDataset`` to the stacked form, plus ``"bad_images"``; only that where none could be read."""
    readable = [sample for sample in samples if "image" in sample]
    batch = stack(readable) if readable else {}
    return {**batch, "bad_images": [message for sample in samples for message in sample["bad_images"]]}


def init_worker(worker_id: int) -> None:
    """One thread a worker: workers are the parallelism, and OpenCV's threads do not survive a fork.

    A signal to all processes of a run asks for a checkpoint (``engine.preempt``): a worker goes on until it is there,
    and ends when its own parent says so.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def prefetch(batches: Iterable[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """The same batches, with their tensors on a CUDA device; on any other device they pass as they are.

    Each copy is on a stream of its own, one batch ahead. It is asynchronous from pinned memory.

    Args:
        batches: tensors and anything else by name.
        device: of the model.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        coming = _start(batch, device, stream)
        if waiting is not None:
            yield _arrive(*waiting, device)
        waiting = coming
    if waiting is not None:
        yield _arrive(*waiting, device)


def _start(batch: dict[str, Any], device: torch.device, stream: Any) -> tuple[dict[str, Any], Any]:
    with torch.cuda.stream(stream):
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        return moved, stream.record_event()


def _arrive(batch: dict[str, Any], copied: Any, device: torch.device) -> dict[str, Any]:
    """Makes what is computed from now on wait for the copy, not the host."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)  # its memory is not for the copying stream again before that is done
    return batch


def build_train_loader(cfg: CfgNode, datasets) -> ClsLoader:
    """An endless loader over ``DATASETS.TRAIN``; ``SOLVER.IMS_PER_BATCH`` images an iteration over all processes."""
    records = _chain([dataset.records for dataset in datasets])
    parts = comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS
    if cfg.SOLVER.IMS_PER_BATCH % parts:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH} on {comm.get_world_size()} processes with "
            f"SOLVER.ACCUM_STEPS {cfg.SOLVER.ACCUM_STEPS}; allowed: a multiple of {parts}"
        )
    # All ranks must agree on the seed of the order; a negative SEED means a new one every run.
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    samples = MappedDataset(
        records,
        ClsDatasetMapper(cfg, is_train=True),
        seed,
        on_bad="next" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    sampler = _build_sampler([dataset.records for dataset in datasets], seed)
    return ClsLoader(_build_loader(cfg, samples, sampler, True), cfg.SOLVER.IMS_PER_BATCH, _device(cfg))


def build_test_loader(cfg: CfgNode, dataset) -> ClsLoader:
    """Every image of one set once, over all processes, in the training set's classes."""
    samples = MappedDataset(
        _chain([dataset.records]),
        ClsDatasetMapper(cfg, is_train=False),
        on_bad="drop" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    return ClsLoader(_build_loader(cfg, samples, InferenceSampler(len(samples)), False), cfg.SOLVER.IMS_PER_BATCH)


def _build_sampler(parts: Sequence[Sequence[dict]], seed: int) -> TrainingSampler:
    ranks = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    if all(isinstance(part, ShardRecords) for part in parts):
        return ShardSampler([size for part in parts for size in part.shard_sizes.tolist()], seed, **ranks)
    return TrainingSampler(sum(map(len, parts)), seed, **ranks)


def _chain(parts: Sequence[Sequence[dict]]) -> Sequence[dict]:
    """The records of several sets in a row, in a form that workers share instead of copying it."""
    shared = [part if isinstance(part, StoredRecords) else DatasetFromList(part, copy=False) for part in parts]
    return shared[0] if len(shared) == 1 else ConcatDataset(shared)


def _device(cfg: CfgNode) -> torch.device:
    device = torch.device(cfg.MODEL.DEVICE)
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device


def _build_loader(cfg: CfgNode, samples: MappedDataset, sampler: Sampler, drop_last: bool) -> DataLoader:
    at_once = max(1, cfg.SOLVER.IMS_PER_BATCH // (comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS))
    return DataLoader(
        samples,
        batch_sampler=BatchSampler(sampler, at_once, drop_last),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=collate,
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
    )
