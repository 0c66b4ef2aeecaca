"""Top-k accuracy, per-class accuracy and confusion matrix of a softmax classifier."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from imgcls.errors import UserError
from imgcls.evaluation.gathered import GatheredEvaluator, Predictions, csv_text, json_text, number, write_results
from imgcls.evaluation.metrics import confusion_matrix, per_class_accuracy, topk_accuracy


class ImageNetEvaluator(GatheredEvaluator):
    """Accuracy of single-label classification: ``{"accuracy": {"top1": ..., "top5": ...}}``, 0 to 100.

    Writes ``accuracy.json``, ``per_class.csv``, ``confusion_matrix.csv`` (rows are true classes) and
    ``predictions.csv`` (one row per image, in dataset order).

    Args:
        classes, distributed, output_dir, save_probabilities: as for ``GatheredEvaluator``.
        topk: each k to report; values above the number of classes are left out.

    Raises:
        UserError: ``classes`` is empty, or ``topk`` leaves nothing to report.
    """

    def __init__(
        self,
        classes: Sequence[str],
        topk: Sequence[int] = (1, 5),
        distributed: bool = True,
        output_dir: str | None = None,
        save_probabilities: bool = False,
    ) -> None:
        super().__init__(classes, distributed, output_dir, save_probabilities)
        self.topk = sorted({k for k in topk if k <= len(self.classes)})
        if not self.topk or self.topk[0] < 1:
            raise UserError(
                f"TEST.TOPK is {tuple(topk)}: give at least one k from 1 to the number of classes, {len(self.classes)}"
            )

    def _read(self, labels: Tensor, outputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        num_classes = len(self.classes)
        if labels.ndim != 1:
            raise UserError(
                f"labels of shape {tuple(labels.shape)} are multi-label, but top-k accuracy needs one label per image: "
                "use a single-label dataset in DATASETS.TEST, or set MODEL.CLSNET.HEAD to 'sigmoid'"
            )
        pred = torch.stack([output["pred_classes"] for output in outputs])
        if pred.shape[1] < self.topk[-1]:
            raise UserError(
                f"the model returns its {pred.shape[1]} best classes, but TEST.TOPK asks for top{self.topk[-1]}: "
                "lower TEST.TOPK, or build the model with the same TEST.TOPK"
            )
        kept = {}
        if self.save_probabilities:
            if pred.shape[1] != num_classes:
                raise UserError(
                    f"TEST.SAVE_PROBABILITIES needs the scores of all {num_classes} classes, but the model returns "
                    f"{pred.shape[1]}: build the model with the same TEST.SAVE_PROBABILITIES"
                )
            ranked = torch.stack([output["scores"] for output in outputs]).float()
            kept["probs"] = torch.zeros_like(ranked).scatter_(1, pred, ranked).cpu()
        pred = pred[:, : self.topk[-1]].cpu()
        scores = torch.stack([output["scores"][0] for output in outputs]).float().cpu()
        labels = labels.to("cpu", torch.int64)
        for name, values in (("predicted", pred), ("true", labels)):
            if values.min() < 0 or values.max() >= num_classes:
                raise UserError(
                    f"{name} classes range from {int(values.min())} to {int(values.max())}, but the dataset has "
                    f"classes 0 to {num_classes - 1}: MODEL.CLSNET.NUM_CLASSES and DATASETS.TEST must agree"
                )
        return {"labels": labels, "pred_classes": pred, "scores": scores, **kept}

    def _score(self, predictions: Predictions) -> OrderedDict[str, OrderedDict[str, float]]:
        labels, pred = predictions.joined("labels"), predictions.joined("pred_classes")
        metrics = OrderedDict((f"top{k}", topk_accuracy(pred, labels, k).item()) for k in self.topk)
        if self.output_dir is not None:
            files = self._files(predictions, labels, pred[:, 0], metrics)
            write_results(self.output_dir, files, predictions.joined("probs") if self.save_probabilities else None)
        return OrderedDict(accuracy=metrics)

    def _files(
        self, predictions: Predictions, labels: Tensor, pred: Tensor, metrics: Mapping[str, float]
    ) -> dict[str, str]:
        names, columns = self.classes, ("class", "images", "accuracy")
        matrix = confusion_matrix(pred, labels, len(names))
        counts, accuracy = matrix.sum(dim=1).tolist(), [number(a) for a in per_class_accuracy(matrix).tolist()]
        per_class = list(zip(names, counts, accuracy, strict=True))
        predicted = zip(
            predictions.image_ids,
            predictions.file_names,
            [names[i] for i in labels.tolist()],
            [names[i] for i in pred.tolist()],
            [f"{s:.6f}" for s in predictions.joined("scores").tolist()],
            strict=True,
        )
        content = {
            "metrics": metrics,
            "num_images": len(labels),
            "per_class": [dict(zip(columns, row, strict=True)) for row in per_class],
        }
        return {
            "per_class.csv": csv_text(columns, per_class),
            "confusion_matrix.csv": csv_text(
                ["true \\ predicted", *names],
                ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
            ),
            "predictions.csv": csv_text(("image_id", "file_name", "label", "pred", "score"), predicted),
            # Written last: if it exists, the folder is complete.
            "accuracy.json": json_text(content),
        }
