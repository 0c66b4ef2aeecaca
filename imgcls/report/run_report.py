"""The whole report of one run."""

from dataclasses import dataclass
from pathlib import Path

from imgcls.report.class_charts import draw_ap_bars, draw_confusion_matrix
from imgcls.report.curves import draw_curves
from imgcls.report.grid import draw_grid
from imgcls.report.results import find_results, metrics_table


@dataclass
class Report:
    """What :func:`write_report` made.

    Attributes:
        source: the folder that the results were read from.
        table: the metrics as lines of text.
        images: paths of the curves, of the confusion matrix (several labels an image: of the AP bars),
            and of the grid of test images.
    """

    source: Path
    table: str
    images: list[Path]


def write_report(output_dir: str | Path) -> Report:
    """Draws the images of a finished run into ``OUTPUT_DIR/report``.

    Args:
        output_dir: the run's ``OUTPUT_DIR``, with ``metrics.json`` and ``inference/``.

    Raises:
        UserError: a file of the run is missing or cannot be read.
    """
    output_dir = Path(output_dir)
    results = find_results(output_dir)
    folder = output_dir / "report"
    images = [draw_curves(output_dir / "metrics.json", folder / "curves.png")]
    if results.task == "accuracy":
        matrix = results.folder / "confusion_matrix.csv"
        images.append(draw_confusion_matrix(matrix, folder / "confusion_matrix.png"))
    else:
        images.append(draw_ap_bars(results.content["per_class"], folder / "average_precision.png"))
    images.append(draw_grid(results.folder / "predictions.csv", folder / "predictions.png"))
    return Report(results.folder, metrics_table(results), images)
