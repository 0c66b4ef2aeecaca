"""Stacked batches from mapped records."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from imgcls.structures import stack

from .prefetch import prefetch
from .samplers import TrainingSampler

_logger = logging.getLogger(__name__)
_logged: set[str] = set()


class ClsLoader:
    """A torch ``DataLoader`` that reports pictures which could not be read.

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
                    _logger.warning("left out, bad picture number %d: %s", len(self.bad_images), message)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of ``MappedRecords`` to the stacked form, plus ``"bad_images"``; only that where none could be read."""
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
