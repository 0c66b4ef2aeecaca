"""The grid of test images."""

import csv

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from imgcls.report import grid

SINGLE = ["image_id", "file_name", "label", "pred", "score"]
MULTI = ["image_id", "file_name", "labels", "pred", "label_scores", "pred_scores"]


def write(path, header: list[str], rows: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_mistakes_first_and_most_confident_ones_first(tmp_path):
    rows = [["ok", "", "cat", "cat", 0.9], ["sure", "", "cat", "dog", 0.8], ["unsure", "", "cat", "dog", 0.4]]
    rows += [["barely", "", "dog", "dog", 0.3], ["surest", "", "dog", "cat", 0.99]]
    write(tmp_path / "p.csv", SINGLE, [[i, name, *rest] for i, (name, _, *rest) in enumerate(rows)])
    tiles = grid.read_tiles(tmp_path / "p.csv", {})
    assert [tile.file_name for tile in tiles] == ["surest", "sure", "unsure", "barely", "ok"]
    assert [tile.right for tile in tiles] == [False] * 3 + [True] * 2
    assert (tiles[0].predicted, tiles[0].true) == ("cat (99 %)", "dog")


def test_multi_label_mistakes_are_false_alarms_and_missed_classes(tmp_path):
    rows = [
        [0, "right", "cat;dog", "cat;dog", "0.9;0.6", "0.9;0.6"],
        [1, "alarm", "cat", "cat;dog", "0.9", "0.9;0.7"],
        [2, "missed", "cat;dog", "cat", "0.9;0.1", "0.9"],
        [3, "empty", "", "", "", ""],
        [4, "half right", "dog", "", "0.45", ""],
    ]
    write(tmp_path / "p.csv", MULTI, rows)
    tiles = grid.read_tiles(tmp_path / "p.csv", {"dog": "1"})
    names = ["missed", "alarm", "half right", "right", "empty"]
    assert [(tile.file_name, tile.right) for tile in tiles] == list(zip(names, [False] * 3 + [True] * 2, strict=True))
    assert [tile.confidence for tile in tiles[:3]] == pytest.approx([0.9, 0.7, 0.55])
    assert (tiles[1].predicted, tiles[1].true, tiles[4].predicted) == ("cat, 1", "cat", "none")


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws the grid of some single-label rows and returns the figure and the axes in use."""
    kept, save = [], grid.save
    monkeypatch.setattr(grid, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])

    def run(rows: list[list]):
        write(tmp_path / "p.csv", SINGLE, rows)
        grid.draw_grid(tmp_path / "p.csv", tmp_path / "grid.png", {})
        with Image.open(tmp_path / "grid.png") as image:
            assert image.format == "PNG"
        return kept[-1], [axes for axes in kept[-1].axes if axes.axison]

    return run


def test_images_titles_and_colours(draw, tmp_path):
    left_right = np.zeros((10, 20, 3), np.uint8)
    left_right[:, 10:] = (255, 0, 0)
    upright = Image.fromarray(left_right)
    exif = upright.getexif()
    exif[0x0112] = 6
    # Stored a quarter turn to the left; orientation 6 turns it back to the right.
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "türned pic.png", exif=exif)
    Image.new("L", (900, 600), 128).save(tmp_path / "big.jpg")
    figure, (wrong, right) = draw(
        [[0, tmp_path / "big.jpg", "$a$", "$a$", 0.5], [1, tmp_path / "türned pic.png", "b", "c", 0.5]]
    )
    assert figure.get_suptitle().startswith("1 of 2 test images wrong")
    assert np.array_equal(wrong.images[0].get_array(), left_right)
    assert right.images[0].get_array().shape == (213, 320, 3)
    assert wrong.get_title() == "pred: c (50 %)\ntrue: b" and right.get_title().endswith(r"true: \$a\$")
    assert to_hex(wrong.title.get_color()) == grid.RED and to_hex(right.title.get_color()) == grid.GREEN


def test_an_image_that_is_gone_keeps_its_classes(draw, tmp_path):
    _, (axes,) = draw([[0, tmp_path / "gone.png", "a", "b", 0.5]])
    assert axes.get_title() == "pred: b (50 %)\ntrue: a"
    assert axes.texts[0].get_text() == "image cannot\nbe read" and not axes.images


def test_at_most_24_tiles_and_a_last_row_that_is_not_full(draw, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    rows = [[i, tmp_path / "a.png", "a", "a", 0.5] for i in range(30)]
    assert len(draw(rows)[1]) == 24
    figure, used = draw(rows[:7])
    assert len(used) == 7 and len(figure.axes) == 12
