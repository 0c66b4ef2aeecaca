"""Accuracy, precision, recall and F1, and the confusion matrix of a softmax classifier."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from imgcls.config.check import reported_topk
from imgcls.errors import UserError
from imgcls.evaluation.gathered import GatheredEvaluator, Predictions, csv_text, json_text, number, write_results
from imgcls.evaluation.metrics import class_scores, confusion_matrix, topk_accuracy


class ImageNetEvaluator(GatheredEvaluator):
    """Metrics of single-label classification, 0 to 100, under the task ``"accuracy"``.

    They are the top-k accuracies, ``balanced`` (mean accuracy of the classes that have images), ``precision_macro``,
    ``recall_macro`` and ``F1_macro`` (means over the classes that have images or were predicted), followed by the mean
    ``loss`` if the model returns that of each image.

    Writes ``accuracy.json``, ``per_class.csv``, ``confusion_matrix.csv`` (rows are true classes) and
    ``predictions.csv`` (one row per image, in dataset order).

    Args:
        classes, distributed, output_dir, save_probabilities: as for ``GatheredEvaluator``.
        topk: each k to report; those from the number of classes on, which give 100 %, are left out unless none remains.

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
        self.topk = reported_topk(topk, len(self.classes))
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
        matrix = confusion_matrix(pred[:, 0], labels, len(self.classes))
        per_class = class_scores(matrix)
        metrics = OrderedDict((f"top{k}", topk_accuracy(pred, labels, k).item()) for k in self.topk)
        metrics["balanced"] = per_class["accuracy"].nanmean().item()
        metrics |= {f"{name}_macro": per_class[name].nanmean().item() for name in ("precision", "recall", "F1")}
        metrics |= predictions.mean_loss()
        if self.output_dir is not None:
            files = self._files(predictions, labels, pred[:, 0], matrix, per_class, metrics)
            write_results(self.output_dir, files, predictions.joined("probs") if self.save_probabilities else None)
        return OrderedDict(accuracy=metrics)

    def _files(
        self,
        predictions: Predictions,
        labels: Tensor,
        pred: Tensor,
        matrix: Tensor,
        per_class: Mapping[str, Tensor],
        metrics: Mapping[str, float],
    ) -> dict[str, str]:
        names = self.classes
        columns = {"class": names, "images": matrix.sum(dim=1).tolist()}
        # The recall of a class is its accuracy.
        columns |= {name: [number(v) for v in per_class[name].tolist()] for name in ("accuracy", "precision", "F1")}
        rows = list(zip(*columns.values(), strict=True))
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
            "per_class": [dict(zip(columns, row, strict=True)) for row in rows],
        }
        return {
            "per_class.csv": csv_text(list(columns), rows),
            "confusion_matrix.csv": csv_text(
                ["true \\ predicted", *names],
                ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
            ),
            "predictions.csv": self._predictions_text(
                ("image_id", "file_name", "label", "pred", "score"), predicted, predictions
            ),
            # Written last: if it exists, the folder is complete.
            "accuracy.json": json_text(content),
        }
