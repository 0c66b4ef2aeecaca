"""The average precision bars."""

import pytest
from PIL import Image

from imgcls.report import class_charts as ap_bars


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws bars and gives the axes."""
    kept, save = [], ap_bars.save
    monkeypatch.setattr(ap_bars, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])

    def run(scores: list):
        rows = [{"class": f"c{i}", "positives": i, "AP": score} for i, score in enumerate(scores)]
        ap_bars.draw_ap_bars(rows, tmp_path / "ap.png")
        with Image.open(tmp_path / "ap.png") as image:
            assert image.height < 2600
        return kept[-1].axes[0]

    return run


def test_best_first_and_absent_classes_last_without_a_bar(draw):
    axes = draw([None, 40.0, 90.0, 0.0])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c2 (2)", "c1 (1)", "c3 (3)", "c0 (0)"]
    assert [bar.get_width() for bar in axes.patches] == [90, 40, 0]
    assert [t.get_text() for t in axes.texts] == ["90.0", "40.0", "0.0", "no positive in this set"]
    assert "mAP 43.33 % over 3 classes" in axes.get_title()


def test_many_classes_have_no_names(draw):
    axes = draw([float(i % 100) for i in range(1000)])
    assert len(axes.patches) == 1000 and not axes.texts
    assert axes.get_ylabel() == "classes, best first"


def test_no_class_has_a_positive(draw):
    assert "no class has a positive" in draw([None, None]).get_title()
