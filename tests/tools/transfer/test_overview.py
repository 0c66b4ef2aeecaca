"""One image of classifier, hand-off and detector."""

import json

import numpy as np
import pytest
from PIL import Image
from transfer import overview as module
from transfer.overview import draw_overview

from imgcls.errors import UserError


@pytest.fixture
def finished(tmp_path, experiment):
    """A toy experiment with nine classified images, one of them wrong."""
    run = experiment(1, "handoff", ([9, 9, 30, 30], 0.9), ([45, 45, 15, 15], 0.8))
    (run / "log.txt").write_text("training\n[01/01] imgcls INFO: backbone.pth: 134/135 backbone tensors loaded\n")
    pretrain = tmp_path / "out" / "pretrain"
    (pretrain / "inference").mkdir(parents=True)
    (pretrain / "metrics.json").write_text(json.dumps({"iteration": 9, "accuracy/top1": 87.65}) + "\n")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "blue.png")
    rows = [f"{i},{tmp_path / 'blue.png'},bag,{'coat' if i == 4 else 'bag'},0.9" for i in range(12)]
    (pretrain / "inference" / "predictions.csv").write_text("\n".join(["image_id,file_name,label,pred,score", *rows]))
    return tmp_path / "out"


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    made = []
    real = module.new_figure
    monkeypatch.setattr(module, "new_figure", lambda *size: made.append(real(*size)) or made[-1])
    return made


def test_it_shows_classes_the_hand_off_and_boxes(finished, figures, has_colour):
    path = draw_overview(finished, finished / "new folder" / "overview.png")
    assert path.stat().st_size < 250_000
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1000
    # The detector's images are on the right.
    assert has_colour(pixels[:, pixels.shape[1] // 2 :], "lime") and has_colour(pixels, "red")

    left, middle, right = figures[0].subfigs
    assert [axes.get_title() for axes in left.axes] == ["bag"] * 4 + ["coat"] + ["bag"] * 4
    assert len({axes.title.get_color() for axes in left.axes}) == 2
    assert "top-1 on test images: 87.7 %" in left.get_suptitle()
    assert "134/135" in [text.get_text() for text in middle.axes[0].texts]
    assert "(3 iterations, AP50 50.0)" in right.get_suptitle()


def test_the_command_draws_only_the_overview(finished, run_tool):
    code, out, error = run_tool("transfer_report.py", finished, "--overview", finished / "overview.png")
    assert (code, out) == (0, f"{finished / 'overview.png'}\n"), error
    assert not (finished / "table.md").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("handoff-1/metrics.json", r"out has no run handoff-SEED; run scripts/transfer_experiment\.sh"),
        ("handoff-1/inference/coco_instances_results.json", r"coco_instances_results\.json: no such file"),
        ("handoff-1/log.txt", r"log\.txt: no such file"),
        ("pretrain/inference/predictions.csv", r"predictions\.csv: no such file"),
        ("pretrain/metrics.json", r"metrics\.json: no such file"),
    ],
)
def test_an_unfinished_experiment_is_refused(finished, missing, message):
    (finished / missing).unlink()
    with pytest.raises(UserError, match=message):
        draw_overview(finished, finished / "overview.png")
    assert not (finished / "overview.png").exists()


def test_a_detector_without_a_proved_hand_off_is_refused(finished):
    (finished / "handoff-1" / "log.txt").write_text("nothing")
    with pytest.raises(UserError, match=r"log\.txt: reports no backbone tensors loaded"):
        draw_overview(finished, finished / "overview.png")


def test_a_path_that_cannot_be_written_is_refused(finished):
    (finished / "file").write_text("")
    with pytest.raises(UserError, match=r"overview\.png: cannot be written"):
        draw_overview(finished, finished / "file" / "overview.png")
