"""Data loaders that yield stacked batches."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Sampler

from imgcls.data.dataset import Dataset, StoredRecords
from imgcls.data.mapper import ClsDatasetMapper, MappedDataset
from imgcls.data.sampler import ShardSampler, TrainingSampler, split_evenly
from imgcls.errors import UserError
from imgcls.structures import stack

_logger = logging.getLogger(__name__)

_PARENT_CHECK_SECONDS = 5.0


class ClsLoader:
    """A torch ``DataLoader`` that logs images which cannot be read and copies batches to a GPU ahead of time.

    Workers start when the loader is iterated, so a resumed run must call ``start_at`` first.

    Args:
        loader: yields batches of `collate`.
        batch_size: of all processes together.
        device: a GPU to which batches are copied; for any other device they stay in main memory.
        logged: messages about unreadable images that are not logged again; new ones are added (`Dataset.logged`).

    Attributes:
        bad_images: messages about the unreadable images that this loader has skipped.
    """

    def __init__(
        self,
        loader: DataLoader,
        batch_size: int,
        device: torch.device | None = None,
        logged: set[str] | None = None,
    ):
        self.loader = loader
        self.batch_size = batch_size
        self.device = device or torch.device("cpu")
        self.logged = set() if logged is None else logged
        self.bad_images: set[str] = set()

    @property
    def num_images(self) -> int:
        """The number of records in the dataset, over all processes."""
        return len(cast(MappedDataset, self.loader.dataset))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from prefetch(self._batches(), self.device)

    def start_at(self, iteration: int) -> None:
        """Makes the next iterator start with the batch of ``iteration``, without reading the batches before it."""
        batch_sampler = self.loader.batch_sampler
        if isinstance(batch_sampler, BatchSampler) and isinstance(batch_sampler.sampler, TrainingSampler):
            batch_sampler.sampler.first_position = iteration * self.batch_size

    def preview(self, count: int) -> list[dict[str, Any]]:
        """Loads, in this process, the first samples that the next iterator will yield.

        Samples with unreadable images are left out. No random number of the caller is drawn.
        """
        sampler = cast(BatchSampler, self.loader.batch_sampler).sampler
        samples = [self.loader.dataset[key] for key in islice(sampler, count)]
        return [sample for sample in samples if "image" in sample]

    def _batches(self) -> Iterator[dict[str, Any]]:
        # A worker inherits the mask, so that no signal can end it before `init_worker` has run.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        try:
            batches = iter(self.loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for batch in batches:
            for message in batch.pop("bad_images"):
                self.bad_images.add(message)
                if message not in self.logged:
                    self.logged.add(message)
                    _logger.warning("skipped bad image number %d: %s", len(self.bad_images), message)
            if batch:
                yield batch


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks samples of `MappedDataset` and collects their ``"bad_images"``, the only key if none could be read."""
    readable = [sample for sample in samples if "image" in sample]
    batch = stack(readable) if readable else {}
    return {**batch, "bad_images": [message for sample in samples for message in sample["bad_images"]]}


def init_worker(worker_id: int) -> None:
    """Prepares a loader worker: it uses one thread, and ignores the signals that ask a run to stop.

    SIGUSR1 and SIGTERM may be sent to all processes of a run. Workers ignore them so that training can reach a
    checkpoint; SIGTERM ends them only if their parent sent it. OpenCV's threads would not survive the fork.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Not os.getppid(), which is another process if the parent has died already.
    parent = multiprocessing.parent_process()
    threading.Thread(target=_exit_with, args=(parent.pid if parent else os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _exit_with(parent: int) -> None:
    """Ends this process when its parent asks for it or has died: workers can hang on locks of a killed parent."""
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, _PARENT_CHECK_SECONDS)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)


def prefetch(batches: Iterable[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """Copies the tensors of each batch to a CUDA device, one batch ahead; for other devices changes nothing.

    Copies run on a separate stream. From pinned memory they are asynchronous.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    waiting = None
    for batch in batches:
        started = _start_copy(batch, device, stream)
        if waiting is not None:
            yield _finish_copy(*waiting, device)
        waiting = started
    if waiting is not None:
        yield _finish_copy(*waiting, device)


def _start_copy(
    batch: dict[str, Any], device: torch.device, stream: torch.cuda.Stream
) -> tuple[dict[str, Any], torch.cuda.Event]:
    with torch.cuda.stream(stream):
        copied = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
        return copied, stream.record_event()


def _finish_copy(batch: dict[str, Any], copied: torch.cuda.Event, device: torch.device) -> dict[str, Any]:
    """Makes the current stream, but not the CPU, wait for the copy."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)  # the copy stream must not reuse this memory while it is being read
    return batch


def build_train_loader(cfg: CfgNode, datasets: Sequence[Dataset]) -> ClsLoader:
    """Builds an endless loader over at least one training set, with ``SOLVER.IMS_PER_BATCH`` images per iteration.

    Raises:
        UserError: the batch cannot be divided by the number of processes and accumulation steps.
    """
    shares = comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS
    if cfg.SOLVER.IMS_PER_BATCH % shares:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH} on {comm.get_world_size()} processes with "
            f"SOLVER.ACCUM_STEPS {cfg.SOLVER.ACCUM_STEPS}; allowed: a multiple of {shares}"
        )
    # All ranks must use the same seed; a negative SEED means a new one for every run.
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    samples = MappedDataset(
        _concatenate([dataset.records for dataset in datasets]),
        ClsDatasetMapper(cfg, is_train=True),
        seed,
        on_bad="next" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    sampler = _build_sampler([dataset.records for dataset in datasets], seed)
    loader = _build_loader(cfg, samples, sampler, drop_last=True)
    return ClsLoader(loader, cfg.SOLVER.IMS_PER_BATCH, _device(cfg), datasets[0].logged)


def build_test_loader(cfg: CfgNode, dataset: Dataset) -> ClsLoader:
    """Builds a loader that yields every image of a test set once, divided among the processes."""
    samples = MappedDataset(
        _concatenate([dataset.records]),
        ClsDatasetMapper(cfg, is_train=False),
        on_bad="drop" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    loader = _build_loader(cfg, samples, InferenceSampler(len(samples)), drop_last=False)
    return ClsLoader(loader, cfg.SOLVER.IMS_PER_BATCH, logged=dataset.logged)


def _build_sampler(sets: Sequence[Sequence[dict]], seed: int) -> TrainingSampler:
    """With shards, the order is that of windows; other sets then take part as pseudo-shards of the median size."""
    rank, world_size = comm.get_rank(), comm.get_world_size()
    sizes_of_sets = [records.shard_sizes if isinstance(records, StoredRecords) else None for records in sets]
    real_sizes = [size for shard_sizes in sizes_of_sets if shard_sizes is not None for size in shard_sizes]
    if not real_sizes:
        return TrainingSampler(sum(map(len, sets)), seed, rank, world_size)
    typical = max(1, int(np.median(real_sizes)))
    sizes: list[int] = []
    shuffled: list[range] = []
    first = 0
    for records, shard_sizes in zip(sets, sizes_of_sets, strict=True):
        if shard_sizes is not None:
            sizes += shard_sizes.tolist()
        else:
            sizes += split_evenly(len(records), typical)
            shuffled.append(range(first, first + len(records)))
        first += len(records)
    return ShardSampler(sizes, seed, rank, world_size, shuffled)


def _concatenate(sets: Sequence[Sequence[dict]]) -> Sequence[dict]:
    """The records of several sets in a row, in a form that workers share instead of copying."""
    shared: list[Any] = [
        records if isinstance(records, StoredRecords) else DatasetFromList(records, copy=False) for records in sets
    ]
    return shared[0] if len(shared) == 1 else cast(Sequence[dict], ConcatDataset(shared))


def _device(cfg: CfgNode) -> torch.device:
    """``MODEL.DEVICE``; "cuda" without an index means the current device of this process."""
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _build_loader(cfg: CfgNode, samples: MappedDataset, sampler: Sampler, drop_last: bool) -> DataLoader:
    images_per_step = max(1, cfg.SOLVER.IMS_PER_BATCH // (comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS))
    return DataLoader(
        samples,
        batch_sampler=BatchSampler(sampler, images_per_step, drop_last),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=collate,
        worker_init_fn=init_worker,
        # Pinning memory creates a CUDA context, which a CPU run must not do even if the machine has a GPU.
        pin_memory=torch.device(cfg.MODEL.DEVICE).type == "cuda",
    )
