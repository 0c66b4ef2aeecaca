"""A grid of test images with predicted and true class, mistakes first."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from PIL import Image

from imgcls.data.image import BadImageError, read_image
from imgcls.report.curves import GREEN, GREY, RED, new_figure, plain, save
from imgcls.report.results import read_csv

_COLUMNS, _ROWS = 6, 4
# Pixels of a tile: a photograph is shrunk to this before matplotlib gets it.
_TILE = 320
# Letters that fit above a tile.
_NAME = 22


@dataclass
class Tile:
    """One test image.

    Attributes:
        file_name: its path.
        predicted: names of the predicted classes with their scores.
        true: names of the true classes.
        right: whether both are the same.
        confidence: 0 to 1; of a mistake, how sure the model was of what is wrong.
    """

    file_name: str
    predicted: str
    true: str
    right: bool
    confidence: float


def read_tiles(path: Path) -> list[Tile]:
    """The rows of ``predictions.csv``: mistakes first, most confident ones first; then right ones, least sure first.

    Raises:
        UserError: the file is missing or empty.
    """
    header, *rows = read_csv(path)
    read = _read_multi_label if "labels" in header else _read_single_label
    tiles = [read(dict(zip(header, row, strict=True))) for row in rows]
    return sorted(tiles, key=lambda tile: (tile.right, tile.confidence if tile.right else -tile.confidence))


def draw_grid(predictions_csv: Path, path: Path) -> Path:
    """Draws up to 24 test images; a title is green where the prediction is right and red where it is not.

    Args:
        predictions_csv: ``predictions.csv`` of an evaluation.
        path: the PNG to write.

    Raises:
        UserError: ``predictions_csv`` is missing or empty.
    """
    tiles = read_tiles(predictions_csv)
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
        # The images need not be where they were at test time; the classes still say something.
        axes.text(0.5, 0.5, "image cannot\nbe read", ha="center", va="center", color=GREY, transform=axes.transAxes)
        axes.set_aspect("equal")
        return
    image.thumbnail((_TILE, _TILE))
    axes.imshow(image, interpolation="nearest" if max(image.size) < _TILE // 2 else "antialiased")


def _read_single_label(row: dict[str, str]) -> Tile:
    score = float(row["score"])
    predicted = f"{plain(row['pred'], _NAME - 7)} ({100 * score:.0f} %)"
    return Tile(row["file_name"], predicted, plain(row["label"], _NAME), row["pred"] == row["label"], score)


def _read_multi_label(row: dict[str, str]) -> Tile:
    labels, pred = (row[key].split(";") if row[key] else [] for key in ("labels", "pred"))
    label_scores, pred_scores = (
        [float(score) for score in row[key].split(";") if score] for key in ("label_scores", "pred_scores")
    )
    mistakes = [score for name, score in zip(pred, pred_scores, strict=True) if name not in labels]
    mistakes += [1 - score for name, score in zip(labels, label_scores, strict=True) if name not in pred]
    confidence = max(mistakes) if mistakes else min(pred_scores, default=1.0)
    names = [plain(", ".join(classes) or "none", _NAME) for classes in (pred, labels)]
    return Tile(row["file_name"], *names, not mistakes, confidence)
