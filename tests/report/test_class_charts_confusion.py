"""The confusion matrix's image."""

import csv

import numpy as np
import pytest
from PIL import Image

from imgcls.errors import UserError
from imgcls.report import class_charts as confusion


def write(path, names: list[str], counts) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["true", *names], *([name, *row] for name, row in zip(names, counts, strict=True))])


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws a matrix and gives the axes."""
    kept, save = [], confusion.save
    monkeypatch.setattr(confusion, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])

    def run(names: list[str], counts):
        write(tmp_path / "m.csv", names, counts)
        assert confusion.draw_confusion_matrix(tmp_path / "m.csv", tmp_path / "m.png") == tmp_path / "m.png"
        with Image.open(tmp_path / "m.png") as image:
            assert min(image.size) > 500 and max(image.size) < 2000
            assert len(image.convert("RGB").getcolors(1 << 20)) > 3
        return kept[-1].axes[0]

    return run


def test_rows_are_percentages_with_numbers_in_the_cells(draw):
    axes = draw(["cat, big", "a$b$", "Äpfel"], [[3, 1, 0], [0, 200, 1], [0, 0, 0]])
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 100 * 200 / 201, 100 / 201], [0, 0, 0]])
    numbers = {(t.get_position()): t.get_text() for t in axes.texts}
    assert numbers == {(0, 0): "75", (1, 0): "25", (1, 1): "99.5", (2, 1): "0.5"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat, big (4)", r"a\$b\$ (201)", "Äpfel (0)"]
    assert axes.get_title() == "Confusion matrix: 99.02 % of 205 test images right"


def test_dark_cells_have_white_numbers(draw):
    colours = {t.get_text(): t.get_color() for t in draw(["a", "b"], [[95, 5], [0, 1]]).texts}
    assert (colours["95"], colours["5"]) == ("white", "black")


@pytest.mark.parametrize(("classes", "numbers", "names"), [(20, True, True), (21, False, True), (300, False, False)])
def test_what_cannot_be_read_is_not_drawn(draw, classes, numbers, names):
    axes = draw([f"class {i}" for i in range(classes)], np.eye(classes, dtype=int) * 5)
    assert bool(axes.texts) == numbers
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert ("class 3 (5)" in labels) == names and len(labels) <= 60
    assert ("index" in axes.get_xlabel()) != names


def test_other_files_are_named(tmp_path):
    path = tmp_path / "confusion_matrix.csv"
    with pytest.raises(FileNotFoundError, match=r"confusion_matrix.csv: no such file"):
        confusion.read_confusion_matrix(path)
    for rows, message in (([["x", 1], [1, 1]], "not a table of counts"), ([[1], [2]], "not a square table")):
        write(path, ["a", "b"], rows)
        with pytest.raises(UserError, match=f"confusion_matrix.csv: {message}"):
            confusion.read_confusion_matrix(path)
