"""A finished experiment at toy size."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_run():
    """``write_run(folder, (30.0, 50.0))``: the metrics of a detector, with AP and AP50 of each evaluation."""

    def write(folder, *results):
        folder.mkdir(parents=True)
        lines = [json.dumps({"iteration": 1, "total_loss": 2.0})]
        for iteration, (ap, ap50) in enumerate(results, 2):
            lines.append(json.dumps({"iteration": iteration, "bbox/AP": ap, "bbox/AP50": ap50}))
        (folder / "metrics.json").write_text("\n".join(lines) + "\n")

    return write


@pytest.fixture
def experiment(tmp_path, write_run):
    """A black test image with a box; ``experiment(seed, arm, (box, score), ...)`` writes what a run found on it."""
    root = tmp_path / "datasets" / "synthetic"
    (root / "test").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(root / "test" / "1.png")
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 30, 30], "area": 900, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "bag"}, {"id": 2, "name": "coat"}],
    }
    (root / "test.json").write_text(json.dumps(content))

    def found(seed, arm, *boxes, label=0):
        run = tmp_path / "out" / f"{arm}-{seed}"
        write_run(run, (30.0, 50.0))
        (run / "inference").mkdir()
        results = [{"image_id": 1, "category_id": label + 1, "bbox": box, "score": score} for box, score in boxes]
        (run / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
        return run

    return found


@pytest.fixture
def has_colour():
    """``has_colour(pixels, "red")``: whether some pixel is clearly red; on black, also if half transparent."""

    def check(pixels, name):
        red, green, blue = np.moveaxis(np.asarray(pixels, dtype=int)[..., :3], -1, 0)
        strong = {
            "red": (red > 90) & (green < red - 60) & (blue < red - 60),
            "lime": (green > 90) & (red < green - 60) & (blue < green - 60),
            "white": (red > 90) & (abs(red - green) < 12) & (abs(red - blue) < 12),
        }
        return bool(strong[name].any())

    return check
