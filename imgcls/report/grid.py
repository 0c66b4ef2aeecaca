"""A grid of test images with predicted and true class, mistakes first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from PIL import Image

from imgcls.data.image import BadImageError, read_image
from imgcls.report.figure import GREEN, GREY, RED, new_figure, plain, read_csv, save

_COLUMNS, _ROWS = 6, 4
# Pixels: larger images are shrunk to this before they are drawn.
_TILE = 320
# Characters that fit above a tile.
_NAME = 22


@dataclass
class Tile:
    """One test image.

    Attributes:
        file_name: its path.
        predicted: the predicted class with its score, or the predicted classes.
        true: the true class or classes.
        right: whether both are the same.
        confidence: 0 to 1; for a mistake, the confidence in what is wrong.
    """

    file_name: str
    predicted: str
    true: str
    right: bool
    confidence: float


def read_tiles(path: Path, labels: Mapping[str, str]) -> list[Tile]:
    """Reads ``predictions.csv``: mistakes, most confident first; then correct predictions, least confident first.

    Args:
        path: the file.
        labels: text for each class name, from ``label_classes``; other names are drawn as they are.

    Raises:
        UserError: the file is missing or empty.
    """
    header, *rows = read_csv(path)
    read = _read_multi_label if "labels" in header else _read_single_label
    # In a list of several classes, the evaluator writes ";" in a name as ",".
    labels = {name.replace(";", ","): label for name, label in labels.items()} | dict(labels)
    tiles = [read(dict(zip(header, row, strict=True)), labels) for row in rows]
    return sorted(tiles, key=lambda tile: (tile.right, tile.confidence if tile.right else -tile.confidence))


def draw_grid(predictions_csv: Path, path: Path, labels: Mapping[str, str]) -> Path:
    """Draws up to 24 test images; a title is green where the prediction is right and red where it is wrong.

    Args:
        predictions_csv: ``predictions.csv`` of an evaluation.
        path: the PNG to write.
        labels: as for ``read_tiles``.

    Raises:
        UserError: ``predictions_csv`` is missing or empty.
    """
    tiles = read_tiles(predictions_csv, labels)
    shown = tiles[: _COLUMNS * _ROWS]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(max(2.1 * columns, 6), 0.6 + 2.4 * rows)
    wrong = sum(not tile.right for tile in tiles)
    figure.suptitle(f"{wrong:,} of {len(tiles):,} test images wrong; mistakes first, most confident ones first")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, tile in zip(figure.axes, shown, strict=False):
        _draw_tile(axes, tile)
    return save(figure, path)


def _draw_tile(axes: Axes, tile: Tile) -> None:
    colour = GREEN if tile.right else RED
    axes.set_title(f"pred: {tile.predicted}\ntrue: {tile.true}", color=colour, fontsize=8.5)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=colour, linewidth=2)
    try:
        image = Image.fromarray(read_image(tile.file_name, "RGB"))
    except BadImageError:
        # The image may have been moved since the evaluation; its classes are still shown.
        axes.text(0.5, 0.5, "image cannot\nbe read", ha="center", va="center", color=GREY, transform=axes.transAxes)
        axes.set_aspect("equal")
        return
    image.thumbnail((_TILE, _TILE))
    axes.imshow(image, interpolation="nearest" if max(image.size) < _TILE // 2 else "antialiased")


def _read_single_label(row: dict[str, str], labels: Mapping[str, str]) -> Tile:
    score = float(row["score"])
    predicted = f"{_join([row['pred']], labels, _NAME - 7)} ({100 * score:.0f} %)"
    return Tile(row["file_name"], predicted, _join([row["label"]], labels), row["pred"] == row["label"], score)


def _read_multi_label(row: dict[str, str], labels: Mapping[str, str]) -> Tile:
    true, pred = (row[key].split(";") if row[key] else [] for key in ("labels", "pred"))
    true_scores, pred_scores = (
        [float(score) for score in row[key].split(";") if score] for key in ("label_scores", "pred_scores")
    )
    mistakes = [score for name, score in zip(pred, pred_scores, strict=True) if name not in true]
    mistakes += [1 - score for name, score in zip(true, true_scores, strict=True) if name not in pred]
    confidence = max(mistakes) if mistakes else min(pred_scores, default=1.0)
    return Tile(row["file_name"], _join(pred, labels), _join(true, labels), not mistakes, confidence)


def _join(names: Iterable[str], labels: Mapping[str, str], length: int = _NAME) -> str:
    return plain(", ".join(labels.get(name, name) for name in names) or "none", length)
