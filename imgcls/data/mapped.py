"""Records behind a mapper, with derived randomness and a rule for pictures that cannot be read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset as TorchDataset

from .decode import BadImageError
from .samplers import derive_seed


class MappedRecords(TorchDataset):
    """Records as samples.

    The mapper's random numbers (torch's global generator) are derived from ``(seed, position)``: they do not
    depend on which worker draws the sample, and the caller's generator is left as it was.

    Args:
        records: dataset dicts.
        mapper: record to sample; raises ``BadImageError`` for a file that is no picture.
        seed: of the augmentations.
        on_bad: what such a file does. ``"error"`` raises, ``"next"`` takes the next record that can be read
            (training), ``"drop"`` gives a sample without ``"image"`` (evaluation, which counts no picture twice).
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        mapper: Callable[[Mapping[str, Any]], dict[str, Any]],
        seed: int = 0,
        on_bad: str = "error",
    ):
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.on_bad = on_bad

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The sample at ``(position, index)``, or at an index alone (its own position).

        ``"bad_images"`` lists what was wrong with the files that were left out on the way to it.
        """
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Any]]:
        """The samples of a batch: torch's loaders ask for them together, and the generator is put back once."""
        with torch.random.fork_rng(devices=[]):
            return [self._sample(*(key if isinstance(key, tuple) else (key, key))) for key in keys]

    def _sample(self, position: int, index: int) -> dict[str, Any]:
        torch.default_generator.manual_seed(derive_seed(self.seed, position))
        bad: list[str] = []
        while True:
            try:
                return {**self.mapper(self.records[index]), "bad_images": bad}
            except BadImageError as error:
                bad.append(str(error))
                if self.on_bad == "drop":
                    return {"bad_images": bad}
                if self.on_bad == "error" or len(bad) == len(self.records):
                    raise
            index = (index + 1) % len(self.records)
