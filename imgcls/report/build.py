"""The whole report of one run."""

from dataclasses import dataclass
from pathlib import Path

from .ap_bars import draw_ap_bars
from .confusion import draw_confusion_matrix
from .curves import draw_curves
from .grid import draw_grid
from .results import find_results, metrics_table


@dataclass
class Report:
    """What :func:`write_report` made.

    Attributes:
        source: the folder that the results were read from.
        table: the metrics as lines of text.
        pictures: paths of the curves, of the confusion matrix (several labels a picture: of the AP bars),
            and of the grid of test pictures.
    """

    source: Path
    table: str
    pictures: list[Path]


def write_report(output_dir: str | Path) -> Report:
    """Draws the pictures of a finished run into ``OUTPUT_DIR/report``.

    Args:
        output_dir: the run's ``OUTPUT_DIR``, with ``metrics.json`` and ``inference/``.

    Raises:
        UserError: a file of the run is missing or cannot be read.
    """
    output_dir = Path(output_dir)
    results = find_results(output_dir)
    folder = output_dir / "report"
    pictures = [draw_curves(output_dir / "metrics.json", folder / "curves.png")]
    if results.task == "accuracy":
        matrix = results.folder / "confusion_matrix.csv"
        pictures.append(draw_confusion_matrix(matrix, folder / "confusion_matrix.png"))
    else:
        pictures.append(draw_ap_bars(results.content["per_class"], folder / "average_precision.png"))
    pictures.append(draw_grid(results.folder / "predictions.csv", folder / "predictions.png"))
    return Report(results.folder, metrics_table(results), pictures)
