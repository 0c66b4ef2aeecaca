"""The base class of the evaluators: gathers the predictions of all processes on the first, and writes result files."""

import csv
import io
import json
import logging
import math
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from imgcls.disk import remove_temporary, replace_file
from imgcls.errors import UserError
from imgcls.structures import as_batch

PROBABILITIES = "probabilities.npy"
# Up to this number of classes, predictions.csv has a column for each of them.
MAX_PROBABILITY_COLUMNS = 20

logger = logging.getLogger(__name__)


@dataclass
class Predictions:
    """Predictions for N images, on the CPU.

    Attributes:
        image_ids: N ids.
        file_names: N paths, empty if the loader gave none.
        tensors: ``"labels"`` and the model's outputs by name, each a list of one ``(n, ...)`` tensor per batch.
    """

    image_ids: list[Any] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    tensors: dict[str, list[Tensor]] = field(default_factory=dict)

    def extend(self, other: "Predictions") -> None:
        """Appends the images of ``other``."""
        self.image_ids += other.image_ids
        self.file_names += other.file_names
        for name, tensors in other.tensors.items():
            self.tensors.setdefault(name, []).extend(tensors)

    def joined(self, name: str) -> Tensor:
        """Concatenates the tensors of ``name`` to ``(N, ...)``."""
        return torch.cat(self.tensors[name])

    def mean_loss(self) -> dict[str, float]:
        """``{"loss": mean over the images}``; empty where the model did not return a loss for each image."""
        losses = torch.cat(self.tensors["loss"]).tolist() if "loss" in self.tensors else []
        # fsum rounds only once, so that the order and the number of processes change nothing.
        return {"loss": math.fsum(losses) / len(losses)} if len(losses) == len(self.image_ids) > 0 else {}


class GatheredEvaluator(DatasetEvaluator):
    """Collects predictions on every process and computes the metrics of all of them on the first.

    detectron2's ``InferenceSampler`` gives each process one contiguous part of the dataset, so concatenating
    the processes in order restores the order of the dataset. The parts may differ in size or be empty.

    Args:
        classes: class names; index = label.
        distributed: whether to gather from all processes; otherwise each process evaluates its own predictions.
        output_dir: the folder of the result files, created if missing; None writes no files.
        save_probabilities: whether the files include ``probabilities.npy``, float32 ``(N, K)`` in the order of
            ``predictions.csv``, which also gets a column ``p(CLASS)`` for each class if there are 20 classes or fewer.

    Attributes:
        scores: after ``evaluate``, on the first process: probabilities ``(N, K)`` and labels; None where they were not
            kept.

    Raises:
        UserError: ``classes`` is empty.
    """

    def __init__(
        self,
        classes: Sequence[str],
        distributed: bool = True,
        output_dir: str | None = None,
        save_probabilities: bool = False,
    ) -> None:
        if not classes:
            raise UserError("the class list is empty: the dataset of DATASETS.TEST must name every class")
        self.classes = list(classes)
        self.distributed = distributed
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.save_probabilities = save_probabilities
        self.reset()

    def reset(self) -> None:
        """Discards all predictions."""
        self._predictions = Predictions()
        self.scores: tuple[Tensor, Tensor] | None = None

    def process(self, inputs: Any, outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """Stores the predictions for one batch: one dict of ``outputs`` per image, as ``ClsNet`` returns them.

        The scalar ``"loss"`` of an output is optional.

        Raises:
            UserError: labels or ids are missing, a score or loss is not finite, or model, classes and settings do not
                match.
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
        if all("loss" in output for output in outputs):
            tensors["loss"] = torch.stack([output["loss"] for output in outputs]).float().cpu()
            if tensors["loss"].ndim != 1:
                shape = tuple(tensors["loss"].shape[1:])
                raise UserError(
                    f"the model's 'loss' of an image has the shape {shape}; allowed: a scalar, or no 'loss'"
                )
        for name in ("scores", "probs", "loss"):
            if name not in tensors:
                continue
            broken = (~torch.isfinite(tensors[name]).reshape(len(batch), -1).all(dim=1)).nonzero()
            if len(broken):
                what = "loss for image {!r} is" if name == "loss" else "scores for image {!r} are"
                raise UserError(
                    f"the model's {what.format(batch.image_ids[int(broken[0])])} not finite: use another checkpoint "
                    "(MODEL.WEIGHTS), or train with a lower SOLVER.BASE_LR"
                )
        names = batch.file_names or [""] * len(batch)
        self._predictions.extend(Predictions(batch.image_ids, names, {k: [v] for k, v in tensors.items()}))

    def evaluate(self) -> OrderedDict[str, OrderedDict[str, float]]:
        """Computes the metrics of all predictions and writes the result files; every process must call it.

        Returns:
            ``{task: {metric: 0 to 100}}`` on the first process, with the mean ``"loss"`` last if there is one; an empty
            dict on the others.

        Raises:
            RuntimeError: an image was evaluated twice, so the metrics would not be those of the dataset.
            UserError: the result files cannot be written.
        """
        predictions = self._gather()
        if predictions is None:
            return OrderedDict()
        if not predictions.image_ids:
            logger.warning("%s did not receive any images; there are no results", type(self).__name__)
            return OrderedDict()
        repeated = [image_id for image_id, count in Counter(predictions.image_ids).items() if count > 1]
        if repeated:
            raise RuntimeError(f"{len(repeated)} images were evaluated more than once, first {repeated[0]!r}")
        if "probs" in predictions.tensors:
            self.scores = predictions.joined("probs"), predictions.joined("labels")
        return self._score(predictions)

    def _gather(self) -> Predictions | None:
        # One tensor per name: thousands of small ones pickle slowly, and a view pickles its whole storage.
        local = self._predictions
        local.tensors = {name: [torch.cat(tensors)] for name, tensors in local.tensors.items()}
        if not self.distributed:
            return local
        parts = comm.gather(local, dst=0)
        if not comm.is_main_process():
            return None
        gathered = Predictions()
        for part in parts:
            gathered.extend(part)
        return gathered

    def _predictions_text(self, header: Sequence[str], rows: Iterable[Sequence[Any]], predictions: Predictions) -> str:
        """Formats ``predictions.csv`` from one row for each image."""
        if self.save_probabilities and len(self.classes) <= MAX_PROBABILITY_COLUMNS:
            header = (*header, *(f"p({name})" for name in self.classes))
            probabilities = predictions.joined("probs").tolist()
            rows = ((*row, *(f"{p:.6f}" for p in probs)) for row, probs in zip(rows, probabilities, strict=True))
        return csv_text(header, rows)

    @abstractmethod
    def _read(self, labels: Tensor, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The CPU tensors to keep of one batch, with ``"labels"`` and either ``"scores"`` or ``"probs"`` among them."""

    @abstractmethod
    def _score(self, predictions: Predictions) -> OrderedDict[str, OrderedDict[str, float]]:
        """Computes the metrics of the whole dataset and writes the files."""


def write_results(folder: Path, files: Mapping[str, str], probabilities: Tensor | None = None) -> None:
    """Replaces the result files in ``folder``, each in one step and in the order of ``files``.

    Args:
        folder: created when missing.
        files: text by file name.
        probabilities: ``(N, K)``, written first as ``probabilities.npy``; None removes that file, which would belong
            to an earlier evaluation.

    Raises:
        UserError: the folder cannot be created or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror}); make OUTPUT_DIR writable") from error
    remove_temporary(folder)  # of an evaluation that was killed
    if probabilities is None:
        (folder / PROBABILITIES).unlink(missing_ok=True)
    else:
        with replace_file(folder / PROBABILITIES, "free some space or make OUTPUT_DIR writable") as file:
            np.save(file, probabilities.numpy(), allow_pickle=False)
    for name, text in files.items():
        # File names need not be valid UTF-8; surrogateescape restores their bytes.
        with replace_file(folder / name, "free some space or make OUTPUT_DIR writable") as file:
            file.write(text.encode("utf-8", errors="surrogateescape"))


def json_text(content: Any) -> str:
    """Formats ``content`` as indented JSON, which must not contain NaN (see :func:`number`)."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Formats one table, with Unix line ends and None as an empty cell."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def number(value: float) -> float | None:
    """Rounds ``value`` to six decimals; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else round(value, 6)
