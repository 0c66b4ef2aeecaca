"""What a detector found on an image: boxes and their labels, in the colours of right and wrong."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from pycocotools import mask

from imgcls.data.image import read_image
from imgcls.report.figure import GREEN, GREY, RED, plain

# Of a right detection's box with the true one.
_IOU = 0.5


def draw_image(axes: Axes, record: dict[str, Any], found: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Draws an image with its true boxes grey, right detections green and wrong ones red, each with class and score.

    Args:
        axes: where to.
        record: of a detection set, as detectron2 has it, with boxes ``(left, top, width, height)``.
        found: the detections on it, as ``COCOEvaluator`` writes them, of ids that are the label + 1.
        names: of the classes.
    """
    axes.imshow(Image.fromarray(read_image(record["file_name"], "RGB")))
    for truth in record["annotations"]:
        axes.add_patch(_rectangle(truth["bbox"], GREY, 2.4))
    found = sorted(found, key=lambda box: box["score"], reverse=True)
    colours = [GREEN if right else RED for right in find_right(found, record["annotations"])]
    for box, colour in zip(found, colours, strict=True):
        axes.add_patch(_rectangle(box["bbox"], colour, 1.2))
        _label(axes, box["bbox"], f"{plain(names[box['category_id'] - 1])} {100 * box['score']:.0f} %", colour)


def find_right(found: Sequence[dict[str, Any]], truths: Sequence[dict[str, Any]]) -> list[bool]:
    """Which detections COCO's evaluation counts as right at an IoU of 0.5: the first one on a true box of its class.

    Args:
        found: as for ``draw_image``, the surest one first.
        truths: the image's annotations, as detectron2 has them.
    """
    free, right = list(truths), []
    for box in found:
        label = box["category_id"] - 1
        fitting = [truth for truth in free if truth["category_id"] == label and _iou(box, truth) >= _IOU]
        if fitting:
            free.remove(max(fitting, key=lambda truth: _iou(box, truth)))
        right.append(bool(fitting))
    return right


def drop_covered_labels(figure: Figure) -> None:
    """Of labels that would cover one another, leaves the one that was drawn first: the surest one's."""
    figure.draw_without_rendering()  # only the layout says how much of the image a label takes
    for axes in figure.axes:
        kept = []
        for label in list(axes.texts):
            place = label.get_bbox_patch().get_window_extent()
            if any(place.overlaps(other) for other in kept):
                label.remove()
            else:
                kept.append(place)


def _rectangle(box: Sequence[float], colour: str, linewidth: float) -> Rectangle:
    left, top, width, height = box
    return Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=linewidth)


def _label(axes: Axes, box: Sequence[float], text: str, colour: str) -> None:
    """Above the box, or below it where the image ends; to the side on which there is more of the image."""
    left, top, width, height = box
    bottom, right = axes.get_ylim()[0], axes.get_xlim()[1]
    above, first = top > 0.1 * bottom, left + width / 2 < right / 2
    axes.text(
        left if first else left + width,
        top if above else top + height,
        text,
        ha="left" if first else "right",
        va="bottom" if above else "top",
        fontsize=5.5,
        color="white",
        bbox={"facecolor": colour, "linewidth": 0, "pad": 0.8},
    ).set_in_layout(False)


def _iou(box: dict[str, Any], truth: dict[str, Any]) -> float:
    return float(mask.iou([box["bbox"]], [truth["bbox"]], [0])[0, 0])
