"""Reading metrics.json, and the series of its charts."""

import json

import pytest

from imgcls.errors import UserError
from imgcls.report.curves import loss_series, metric_series, read_history


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


def series(found) -> dict:
    return {line.name: line.points for line in found}


def test_training_and_validation_loss(tmp_path):
    write(tmp_path / "m", [loss(9, 3.0, loss_cls=3.0), loss(19, 2.0, **{"accuracy/loss": 2.5, "a/accuracy/loss": 1})])
    found = series(loss_series(read_history(tmp_path / "m"), lambda i: (i + 1) / 10))
    assert found == {
        "training loss": [(1.0, 3.0), (2.0, 2.0)],
        "validation loss": [(2.0, 2.5)],
        "a: validation loss": [(2.0, 1.0)],
    }


def test_metrics_of_test_sets_averaged_weights_and_training_batches(tmp_path):
    scalars = {"accuracy/top1": 70.0, "ema/accuracy/top1": 71.0, "train/top1": 80.0, "b $/multilabel/mAP": 9.0}
    scalars["accuracy/balanced"] = 60.0
    other = {"accuracy/unknown": 1.0, "lr/top": 1, "time": 4}
    write(tmp_path / "m", [loss(19, 1, **scalars, **other), loss(39, 1, **{"accuracy/top1": float("nan")})])
    found = metric_series(read_history(tmp_path / "m"), float)
    assert [(line.name, line.dashed) for line in found] == [
        ("top-1", False),
        ("ema: top-1", False),
        ("balanced accuracy", False),
        ("b $: mAP", False),
        ("training batches: top-1", True),
    ]
    assert found[0].points[0] == (19.0, 70.0) and len(found[0].points) == 2
