"""Reading metrics.json and drawing its curves."""

import json

import pytest
from PIL import Image

from imgcls.errors import UserError
from imgcls.report.curves import draw_curves, read_history


def write(path, lines: list) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def loss(iteration: int, value: float, **more) -> dict:
    return {"iteration": iteration, "total_loss": value, "lr": 0.1, **more}


def test_lines_of_one_iteration_are_merged_and_evaluations_may_come_late(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, [loss(19, 2.0), loss(39, 1.0), {"iteration": 29, "accuracy/top1": 50.0}, {"iteration": 39, "x": 1}])
    history = read_history(path)
    assert list(history) == [19, 29, 39]
    assert history[29] == {"accuracy/top1": 50.0}
    assert history[39] == {"total_loss": 1.0, "lr": 0.1, "x": 1}


def test_resumed_run_replaces_what_it_repeats(tmp_path):
    path = tmp_path / "metrics.json"
    evaluation = {"iteration": 59, "accuracy/top1": 1.0}
    write(path, [loss(19, 2.0), loss(39, 1.5), loss(59, 9.0), evaluation, loss(79, 9.0), loss(39, 1.4), loss(59, 1.3)])
    assert {i: s["total_loss"] for i, s in read_history(path).items()} == {19: 2.0, 39: 1.4, 59: 1.3}
    assert "accuracy/top1" not in read_history(path)[59]


def test_half_a_line_of_a_killed_run_is_ignored(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, [loss(19, 2.0), '{"iteration": 39, "total_lo', "", "3", loss(59, 1.0)])
    assert list(read_history(path)) == [19, 59]


def test_missing_or_other_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics.json: no such file.*OUTPUT_DIR"):
        read_history(tmp_path / "metrics.json")
    write(tmp_path / "metrics.json", [{"a": 1}])
    with pytest.raises(UserError, match=r"metrics.json: no line with an 'iteration'"):
        read_history(tmp_path / "metrics.json")


def drawn(figures, lines: list, tmp_path) -> tuple:
    write(tmp_path / "metrics.json", lines)
    draw_curves(tmp_path / "metrics.json", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.width > 1000
    return figures[-1].axes


@pytest.fixture
def figures(monkeypatch) -> list:
    """Keeps the figures that are saved."""
    from imgcls.report import curves

    kept, save = [], curves.save
    monkeypatch.setattr(curves, "save", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    return kept


def test_curves_show_loss_and_accuracy(figures, tmp_path):
    lines = [loss(i, 100 - i, **({"accuracy/top1": i, "accuracy/top5": i + 9.0} if i == 39 else {})) for i in (19, 39)]
    left, right = drawn(figures, lines, tmp_path)
    assert left.lines[0].get_xydata().tolist() == [[19, 81], [39, 61]]
    assert left.get_title() == "Training loss" and left.get_xlabel() == right.get_xlabel() == "iteration"
    assert right.get_ylabel() == "accuracy (%)"
    labels = [line.get_label() for line in right.lines]
    assert labels == [
        "top-1, test: 39.00 at the end",
        "top-5, test: 48.00 at the end",
    ]


def test_several_test_sets_and_multi_label(figures, tmp_path):
    lines = [loss(19, 1), {"iteration": 19, "a/multilabel/mAP": 80.0, "b $/multilabel/mAP": 90.0, "b $/time": 4}]
    _, right = drawn(figures, lines, tmp_path)
    assert right.get_ylabel() == "mAP, F1 (%)"
    assert [line.get_label() for line in right.lines] == [
        "a mAP, test: 80.00 at the end",
        r"b \$ mAP, test: 90.00 at the end",
    ]
    assert right.lines[0].get_color() != right.lines[1].get_color()


def test_run_without_evaluation_says_so(figures, tmp_path):
    _, right = drawn(figures, [loss(19, 1)], tmp_path)
    assert not right.lines and right.texts[0].get_text() == "no evaluation in metrics.json"
