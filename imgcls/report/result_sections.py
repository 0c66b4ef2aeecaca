"""The sections of one test set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.dataset import Dataset
from imgcls.errors import UserError
from imgcls.report import markup
from imgcls.report.calibration import measure_reliability
from imgcls.report.curves import Series
from imgcls.report.gallery import (
    PredictedImage,
    choose_doubtful,
    choose_worst,
    find_record,
    read_multi_label,
    read_single_label,
    thumbnail,
)
from imgcls.report.heat_maps import ShownImage, draw_heat_maps
from imgcls.report.line_chart import line_chart, reliability_chart
from imgcls.report.matrix_view import confused_pairs, draw_matrix
from imgcls.report.run_files import Results
from imgcls.report.threshold_curves import STEPS, count_together, measure_curves, read_label_sets

_NEEDS_PROBABILITIES = (
    "Precision-recall and threshold curves need the probabilities of all classes: evaluate with "
    "TEST.SAVE_PROBABILITIES True."
)


class ResultSections:
    """Builds the HTML of a test set, part by part.

    Args:
        results: of the test set.
        dataset: its records, for images in shards; None where they are unknown.
        prefix: of the sections' identifiers, unique in the page.
        output_dir: of the run, whose checkpoint explains the images.

    Raises:
        UserError: a file of the results is missing or damaged.
    """

    def __init__(self, results: Results, dataset: Dataset | None, prefix: str, output_dir: Path):
        self.results = results
        self.records = None if dataset is None else dataset.records
        self.prefix = prefix
        self.classes = results.classes
        self.rows = results.read_predictions()
        self.probabilities = results.read_probabilities()
        self.threshold = float(results.content.get("threshold", 0.5))
        self.single_label = results.task == "accuracy"
        self.predictions = self._read_predictions()
        self.worst, self.doubtful = choose_worst(self.predictions), choose_doubtful(self.predictions)
        shown = [ShownImage(image, self._record(image), image.mistaken) for image in self.worst]
        shown += [ShownImage(image, self._record(image), image.undecided) for image in self.doubtful]
        self.heat_maps = draw_heat_maps(output_dir, shown, results.name.split("/")[0] == "ema")

    def build(self) -> list[tuple[str, str, str]]:
        """Identifier, title and HTML of each section."""
        parts = [("mistakes", "Worst mistakes", self._mistakes()), ("doubtful", "Most doubtful", self._doubtful())]
        if self.single_label:
            counts = self.results.read_confusion_matrix()
            parts.insert(0, ("confusion", "Confusion matrix", self._confusion(counts)))
            parts.append(("calibration", "Calibration", self._calibration()))
        else:
            labels = read_label_sets([row["labels"] for row in self.rows], self.classes)
            predicted = read_label_sets([row["pred"] for row in self.rows], self.classes)
            parts.append(("curves", "Precision, recall and thresholds", self._curves(labels)))
            parts.append(("together", "Classes that occur together", self._together(labels, predicted)))
        parts.insert(1 if self.single_label else 0, ("classes", "Classes", self._classes()))
        suffix = f": {self.results.name}" if self.results.name else ""
        return [(f"{self.prefix}{key}", title + suffix, content) for key, title, content in parts]

    def _read_predictions(self) -> list[PredictedImage]:
        try:
            if self.single_label:
                return read_single_label(self.rows, self.classes, self.probabilities)
            return read_multi_label(self.rows, self.threshold)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self.results.folder / 'predictions.csv'}: damaged ({error}); evaluate the run again to write it"
            ) from error

    def _confusion(self, counts: NDArray[np.int64]) -> str:
        right = 100 * counts.trace() / max(int(counts.sum()), 1)
        return (
            markup.note(
                f"{right:.2f} % of {int(counts.sum()):,} test images are right. Each row is a true class; the shade is "
                "the share of its images."
            )
            + draw_matrix(f"{self.prefix}matrix", counts, counts.sum(axis=1), self.classes, ("true", "predicted"))
            + confused_pairs(counts, self.classes)
        )

    def _classes(self) -> str:
        per_class: list[dict[str, Any]] = self.results.content["per_class"]
        columns = list(per_class[0]) if per_class else []
        rows = [
            [markup.cell(row.get(c), percent=isinstance(row.get(c), float) and "loss" not in c) for c in columns]
            for row in per_class
        ]
        return markup.table(columns, rows, f"{len(rows):,} classes", searchable=len(rows) > 20)

    def _mistakes(self) -> str:
        wrong = sum(p.wrong > 0 for p in self.predictions)
        message = (
            f"{wrong:,} of {len(self.predictions):,} test images are wrong; the most confident mistakes come first."
        )
        shown = [(image, image.mistaken) for image in self.worst]
        return markup.note(message) + self._gallery("mistakes", shown, ("the predicted class", "the true class"))

    def _doubtful(self) -> str:
        if not self.single_label:
            message = "A class that the image has, or that is predicted for it, is closest to the threshold."
        elif self.probabilities is None:
            message = "Right or wrong, these images have the lowest scores."
        else:
            message = "Right or wrong, the two best classes of these images are closest to each other."
        shown = [(image, image.undecided) for image in self.doubtful]
        return markup.note(message) + self._gallery("doubtful", shown, ("the best class", "the second class"))

    def _gallery(self, key: str, shown: Sequence[tuple[PredictedImage, Sequence[str]]], roles: tuple[str, str]) -> str:
        """Cards with images; where there are heat maps, buttons above switch all cards to them.

        Args:
            key: unique for the gallery.
            shown: images with the classes that their heat maps explain.
            roles: of these classes, with a softmax head.
        """
        cards = []
        for prediction, explained in shown:
            lines = [
                f'<span class="role">predicted</span> {_names(prediction.predicted)}',
                f'<span class="role">true</span> {_names(prediction.true)}',
            ]
            uris = [self.heat_maps.uris.get((prediction.row, name)) for name in explained]
            views = [(uri, name) for uri, name in zip(uris, explained, strict=True) if uri]
            kind = "wrong" if prediction.wrong > 0 else "right"
            uri = thumbnail(self._record(prediction))
            cards.append(markup.image_card(uri, lines, kind, prediction.file_name, views))
        if not cards:
            return "<p>None.</p>"
        names = roles[: max(len(explained) for _, explained in shown)] if self.single_label else ("a class",)
        gallery = f'<div class="gallery">{"".join(cards)}</div>'
        if not self.heat_maps.uris:
            return markup.note(self.heat_maps.note) + gallery
        switch = markup.view_switch(f"{self.prefix}{key}-view", ["image", *(f"Grad-CAM of {name}" for name in names)])
        return f'<div class="views">{switch}{markup.note(self.heat_maps.note)}{gallery}</div>'

    def _record(self, prediction: PredictedImage) -> dict[str, Any]:
        return find_record(prediction, self.records, len(self.rows))

    def _calibration(self) -> str:
        scores = np.array([float(row["score"]) for row in self.rows])
        right = np.array([row["pred"] == row["label"] for row in self.rows])
        reliability = measure_reliability(scores, right)
        mean, share = 100 * scores.mean(), 100 * right.mean()
        diagram = reliability_chart(reliability)
        return (
            f'<div class="charts"><figure class="chart"><h3>Reliability diagram</h3>{diagram}</figure>'
            + "<div>"
            + markup.facts(
                [
                    ("expected calibration error", f'<b data-metric="ece">{100 * reliability.ece:.2f} %</b>'),
                    ("mean score", f"{mean:.2f} %"),
                    ("share that is right", f"{share:.2f} %"),
                ]
            )
            + markup.note(
                f"On average the scores are {abs(mean - share):.2f} points too {'high' if mean >= share else 'low'}. "
                "A bar below the diagonal has scores that are too high; pale bars have few images."
            )
            + "</div></div>"
        )

    def _curves(self, labels: NDArray[np.bool_]) -> str:
        if self.probabilities is None:
            return markup.note(_NEEDS_PROBABILITIES)
        curves = measure_curves(self.probabilities, labels)
        names = ["all classes together", *self.classes]
        content = {
            "names": names,
            "threshold": self.threshold,
            "precision": [_rounded(row) for row in curves.precision],
            "recall": [_rounded(row) for row in curves.recall],
        }
        options = "".join(f'<option value="{i}">{markup.text(n)}</option>' for i, n in enumerate(names))
        precision, recall = curves.precision[0], curves.recall[0]
        steps = np.linspace(0, 1, STEPS)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * precision * recall / (precision + recall)
        charts = line_chart(
            [Series("precision at this recall", _pairs(recall, precision))],
            "recall",
            "precision",
            "Precision and recall",
            square=True,
        ) + line_chart(
            [
                Series("precision", _pairs(steps, precision)),
                Series("recall", _pairs(steps, recall)),
                Series("F1", _pairs(steps, f1)),
            ],
            "threshold",
            "share",
            "Thresholds",
            square=True,
        )
        identifier = f"{self.prefix}thresholds"
        return (
            f'<div class="pick" data-source="{identifier}"><label>class <select dir="auto">{options}</select></label>'
            f'<p class="readout" aria-live="polite"></p><div class="charts">{charts}</div></div>'
            + markup.data(identifier, content)
        )

    def _together(self, labels: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> str:
        counts, guessed = count_together(labels), count_together(predicted)
        rows = []
        upper = np.triu(np.maximum(counts, guessed), 1)
        for flat in np.argsort(-upper, axis=None, kind="stable")[:100]:
            one, other = np.unravel_index(flat, upper.shape)
            if upper[one, other] == 0:
                break
            pair = (self.classes[one], self.classes[other], int(counts[one, other]), int(guessed[one, other]))
            rows.append([markup.cell(value) for value in pair])
        header = ("class", "and class", "images with both", "images predicted as both")
        matrix = draw_matrix(f"{self.prefix}pairs", counts, counts.diagonal(), self.classes, ("has", "also has"))
        note = markup.note("The share of the images with the class of the row that also have the class of the column.")
        return note + matrix + (markup.table(header, rows, "Most frequent pairs") if rows else "")


def _names(scored: Sequence[tuple[str, float | None]]) -> str:
    shown = [
        markup.name(name) + ("" if score is None else f" <small>{100 * score:.0f} %</small>") for name, score in scored
    ]
    return ", ".join(shown) or "none"


def _pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 4) for value in values]
