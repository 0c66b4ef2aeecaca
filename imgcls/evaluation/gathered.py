"""Result files: whole or not at all, so that a killed run leaves no half table behind."""

import csv
import json
import logging
import math
import os
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from imgcls.errors import UserError
from imgcls.structures import as_batch


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON; a NaN must have become None before (:func:`number`)."""
    with _replacing(path) as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes one table, ``\\n`` at line ends, None as an empty cell."""
    with _replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def number(value: float) -> float | None:
    """``value`` to six decimals, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else round(value, 6)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        # A file name need not be valid UTF-8; surrogateescape keeps its bytes.
        with open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


logger = logging.getLogger(__name__)


@dataclass
class Predictions:
    """Predictions of N images, on the CPU.

    Attributes:
        image_ids: N ids.
        file_names: N paths, empty strings where the loader gave none.
        tensors: ``"labels"`` and the model's outputs by name, each a list of ``(n, ...)`` pieces.
    """

    image_ids: list[Any] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)

    def extend(self, other: "Predictions") -> None:
        """Appends the images of ``other``."""
        self.image_ids += other.image_ids
        self.file_names += other.file_names
        for name, pieces in other.tensors.items():
            self.tensors.setdefault(name, []).extend(pieces)

    def joined(self, name: str) -> Tensor:
        """The pieces of ``name`` as one ``(N, ...)`` tensor."""
        return torch.cat(self.tensors[name])


class GatheredEvaluator(DatasetEvaluator):
    """Collects predictions on every process and scores the gathered ones on the first.

    detectron2's ``InferenceSampler`` gives each process one contiguous part of the dataset, so the
    order of processes is the order of the dataset. The parts may differ in size or be empty.

    Args:
        classes: class names, index = label.
        distributed: gather from all processes; otherwise each scores its own predictions.
        output_dir: folder for the result files, created when missing; None writes none.
    """

    def __init__(self, classes: Sequence[str], distributed: bool = True, output_dir: str | None = None) -> None:
        if not classes:
            raise UserError("the class list is empty: 'classes' of the dataset's metadata must name every class")
        self.classes = list(classes)
        self.distributed = distributed
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forgets all predictions."""
        self._predictions = Predictions()

    def process(self, inputs: Any, outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """Keeps what one batch gives.

        Args:
            inputs: a batch in either form of :func:`imgcls.structures.as_batch`, with labels and image ids.
            outputs: one dict an image, as ``ClsNet`` gives them outside training.

        Raises:
            UserError: the batch has no labels or ids, or model, classes and settings do not fit together.
        """
        batch = as_batch(inputs)
        if len(outputs) != len(batch):
            raise RuntimeError(f"{len(outputs)} outputs for {len(batch)} images")
        if batch.labels is None:
            raise UserError(
                "evaluation got images without labels: every record of DATASETS.TEST needs 'label' or 'labels'"
            )
        if not batch.image_ids:
            raise UserError("evaluation got images without ids: every record of DATASETS.TEST needs 'image_id'")
        tensors = self._read(batch.labels, outputs)
        scores = tensors.get("scores", tensors.get("probs"))
        broken = (~torch.isfinite(scores).reshape(len(batch), -1).all(dim=1)).nonzero()
        if len(broken):
            raise UserError(
                f"the model's scores for image {batch.image_ids[int(broken[0])]!r} are not finite: take another "
                "checkpoint (MODEL.WEIGHTS), or train with a lower SOLVER.BASE_LR"
            )
        names = batch.file_names or [""] * len(batch)
        self._predictions.extend(Predictions(batch.image_ids, names, {k: [v] for k, v in tensors.items()}))

    def evaluate(self) -> OrderedDict[str, OrderedDict[str, float]]:
        """Scores all predictions; every process must call it.

        Returns:
            ``{task: {metric: 0 to 100}}`` on the first process, an empty dict on the others.

        Raises:
            RuntimeError: an image came twice, so the numbers would not be the dataset's.
        """
        predictions = self._gather()
        if predictions is None:
            return OrderedDict()
        if not predictions.image_ids:
            logger.warning("%s did not receive any image; there is nothing to score", type(self).__name__)
            return OrderedDict()
        repeated = [image_id for image_id, count in Counter(predictions.image_ids).items() if count > 1]
        if repeated:
            raise RuntimeError(f"{len(repeated)} images were evaluated more than once, first {repeated[0]!r}")
        return self._score(predictions)

    def _gather(self) -> Predictions | None:
        # One tensor a name: thousands of small ones pickle slowly, and a view pickles its whole storage.
        local = self._predictions
        local.tensors = {name: [torch.cat(pieces)] for name, pieces in local.tensors.items()}
        if not self.distributed:
            return local
        parts = comm.gather(local, dst=0)
        if not comm.is_main_process():
            return None
        gathered = Predictions()
        for part in parts:
            gathered.extend(part)
        return gathered

    @abstractmethod
    def _read(self, labels: Tensor, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors to keep of one batch, on the CPU: ``"labels"`` and ``"scores"`` or ``"probs"`` among them."""

    @abstractmethod
    def _score(self, predictions: Predictions) -> OrderedDict[str, OrderedDict[str, float]]:
        """The result of the whole dataset; writes the files."""
