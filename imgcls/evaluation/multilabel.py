"""Average precision, precision, recall and F1 of a sigmoid classifier."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from imgcls.errors import UserError
from imgcls.evaluation.gathered import GatheredEvaluator, Predictions, csv_text, json_text, number, write_results
from imgcls.evaluation.metrics import PerClass, per_class_metrics, summary

logger = logging.getLogger(__name__)


class MultiLabelEvaluator(GatheredEvaluator):
    """Metrics of multi-label classification, 0 to 100, under the task ``"multilabel"``.

    They are ``mAP``, ``mAP_micro``, ``exact_match``, and ``precision``, ``recall`` and ``F1`` with the suffixes
    ``_micro`` and ``_macro``, followed by the mean ``loss`` if the model returns that of each image. Classes without
    positives are logged and left out of ``mAP`` and the macro means.
    Writes ``multilabel.json``, ``per_class.csv`` and ``predictions.csv`` (one row per image, in dataset order).

    Args:
        classes, distributed, output_dir, save_probabilities: as for ``GatheredEvaluator``.
        threshold: a class is predicted if its probability is above this.

    Raises:
        UserError: ``classes`` is empty, or the threshold is not between 0 and 1.
    """

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float = 0.5,
        distributed: bool = True,
        output_dir: str | None = None,
        save_probabilities: bool = False,
    ) -> None:
        super().__init__(classes, distributed, output_dir, save_probabilities)
        if not 0 <= threshold <= 1:
            raise UserError(f"TEST.THRESHOLD is {threshold}: it must be a probability, from 0 to 1")
        self.threshold = threshold

    def _read(self, labels: Tensor, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        num_classes = len(self.classes)
        if "probs" not in outputs[0]:
            raise UserError(
                "the model returns no 'probs', but the test set is multi-label: set MODEL.CLSNET.HEAD to 'sigmoid', or "
                "use a single-label dataset in DATASETS.TEST"
            )
        probs = torch.stack([output["probs"] for output in outputs]).float().cpu()
        for name, values in (("probabilities", probs), ("labels", labels)):
            if values.ndim != 2 or values.shape[1] != num_classes:
                raise UserError(
                    f"{name} of shape {tuple(values.shape)} do not fit {num_classes} classes: MODEL.CLSNET.NUM_CLASSES "
                    "and DATASETS.TEST must agree, and DATASETS.TEST must be multi-label"
                )
        return {"labels": (labels > 0.5).to("cpu", torch.uint8), "probs": probs}

    def _score(self, predictions: Predictions) -> OrderedDict[str, OrderedDict[str, float]]:
        labels, probs = predictions.joined("labels"), predictions.joined("probs")
        per_class = per_class_metrics(probs, labels, self.threshold)
        absent = [self.classes[i] for i in (per_class.positives == 0).nonzero().flatten().tolist()]
        if absent:
            logger.warning(
                "%d of %d classes have no positive and are left out of the macro means: %s",
                len(absent),
                len(self.classes),
                ", ".join(absent),
            )
        metrics = summary(probs, labels, per_class, self.threshold)
        metrics |= predictions.mean_loss()
        if self.output_dir is not None:
            files = self._files(predictions, labels, probs, per_class, metrics)
            write_results(self.output_dir, files, probs if self.save_probabilities else None)
        return OrderedDict(multilabel=metrics)

    def _files(
        self, predictions: Predictions, labels: Tensor, probs: Tensor, per_class: PerClass, metrics: Mapping[str, float]
    ) -> dict[str, str]:
        values = {name: [number(v) for v in column.tolist()] for name, column in per_class.metrics.items()}
        columns = {"class": self.classes, "positives": per_class.positives.tolist(), **values}
        rows = list(zip(*columns.values(), strict=True))
        header = ("image_id", "file_name", "labels", "pred", "label_scores", "pred_scores")
        content = {
            "metrics": {name: number(value) for name, value in metrics.items()},
            "threshold": self.threshold,
            "num_images": len(labels),
            "per_class": [dict(zip(columns, row, strict=True)) for row in rows],
        }
        return {
            "per_class.csv": csv_text(list(columns), rows),
            "predictions.csv": self._predictions_text(
                header, self._prediction_rows(predictions, labels, probs), predictions
            ),
            # Written last: if it exists, the folder is complete.
            "multilabel.json": json_text(content),
        }

    def _prediction_rows(self, predictions: Predictions, labels: Tensor, probs: Tensor) -> Iterator[list[Any]]:
        for image_id, name, label, prob in zip(
            predictions.image_ids, predictions.file_names, labels, probs, strict=True
        ):
            indices = [chosen.nonzero().flatten().tolist() for chosen in (label, prob > self.threshold)]
            # A separator inside a class name would shift the names against their scores.
            classes = [";".join(self.classes[i].replace(";", ",") for i in index) for index in indices]
            scores = [";".join(f"{p:.6f}" for p in prob[index].tolist()) for index in indices]
            yield [image_id, name, *classes, *scores]
