"""The confusion matrix and the average precision bars."""

import csv

import numpy as np
import pytest
from PIL import Image

from imgcls.errors import UserError
from imgcls.report import class_charts


def write(path, names: list[str], counts) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["true", *names], *([name, *row] for name, row in zip(names, counts, strict=True))])


@pytest.fixture
def figures(monkeypatch) -> list:
    """Keeps the figures that are saved."""
    kept, save = [], class_charts.save
    monkeypatch.setattr(class_charts, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    return kept


@pytest.fixture
def draw(tmp_path, figures):
    """Draws a confusion matrix and returns the axes."""

    def run(names: list[str], counts, **labels):
        write(tmp_path / "m.csv", names, counts)
        assert class_charts.draw_confusion_matrix(tmp_path / "m.csv", tmp_path / "m.png", labels) == tmp_path / "m.png"
        with Image.open(tmp_path / "m.png") as image:
            assert min(image.size) > 500 and max(image.size) < 2000
            assert len(image.convert("RGB").getcolors(1 << 20)) > 3
        return figures[-1].axes[0]

    return run


def test_rows_are_percentages_with_numbers_in_the_cells(draw):
    axes = draw(["cat, big", "a$b$", "Äpfel"], [[3, 1, 0], [0, 200, 1], [0, 0, 0]])
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 100 * 200 / 201, 100 / 201], [0, 0, 0]])
    numbers = {(t.get_position()): t.get_text() for t in axes.texts}
    assert numbers == {(0, 0): "75", (1, 0): "25", (1, 1): "99.5", (2, 1): "0.5"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat, big (4)", r"a\$b\$ (201)", "Äpfel (0)"]
    assert axes.get_title() == "Confusion matrix: 99.02 % of 205 test images right"


def test_labels_replace_names(draw):
    axes = draw(["cat", "dog"], [[3, 1], [0, 2]], cat="0")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "dog"]


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
        class_charts.read_confusion_matrix(path)
    for rows, message in (([["x", 1], [1, 1]], "not a table of counts"), ([[1], [2]], "not a square table")):
        write(path, ["a", "b"], rows)
        with pytest.raises(UserError, match=f"confusion_matrix.csv: {message}"):
            class_charts.read_confusion_matrix(path)


@pytest.fixture
def draw_bars(tmp_path, figures):
    """Draws bars and returns the axes."""

    def run(scores: list):
        rows = [{"class": f"c{i}", "positives": i, "AP": score} for i, score in enumerate(scores)]
        class_charts.draw_ap_bars(rows, tmp_path / "ap.png", {"c3": "drei"})
        with Image.open(tmp_path / "ap.png") as image:
            assert image.height < 2600
        return figures[-1].axes[0]

    return run


def test_best_first_and_absent_classes_last_without_a_bar(draw_bars):
    axes = draw_bars([None, 40.0, 90.0, 0.0])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c2 (2)", "c1 (1)", "drei (3)", "c0 (0)"]
    assert [bar.get_width() for bar in axes.patches] == [90, 40, 0]
    assert [t.get_text() for t in axes.texts] == ["90.0", "40.0", "0.0", "no positives in this set"]
    assert "mAP 43.33 % over 3 classes" in axes.get_title()


def test_bars_of_many_classes_have_no_names(draw_bars):
    axes = draw_bars([float(i % 100) for i in range(1000)])
    assert len(axes.patches) == 1000 and not axes.texts
    assert axes.get_ylabel() == "classes, best first"


def test_no_class_has_positives(draw_bars):
    assert "no class has positives" in draw_bars([None, None]).get_title()
