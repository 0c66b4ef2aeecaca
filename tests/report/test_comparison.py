"""Several runs side by side."""

import json
from pathlib import Path

import pytest

from imgcls.errors import UserError
from imgcls.report import write_comparison
from imgcls.report.comparison import flatten, short_names


@pytest.fixture
def runs(make_run, tmp_path) -> list[Path]:
    folders = [make_run(tmp_path / name / "run", ["a", "<b>"], num_images=30, seed=i) for i, name in enumerate("xy")]
    for folder, lr in zip(folders, (0.1, 0.2), strict=True):
        (folder / "config.yaml").write_text(
            f"SOLVER: {{BASE_LR: {lr}, MAX_ITER: 50, EPOCHS: 5}}\nOUTPUT_DIR: {folder}\n"
        )
    return folders


def test_metrics_curves_and_changed_keys(runs, tmp_path):
    page = write_comparison(runs, tmp_path / "out put").read_text()
    values = [json.loads((run / "inference/accuracy.json").read_text())["metrics"]["top1"] for run in runs]
    assert values[0] != values[1]
    for name, value in zip(("x/run", "y/run"), values, strict=True):
        mark = ' class="number best"' if value == max(values) else ' class="number"'
        assert f'<td{mark} data-value="{value}"><b data-metric="{name}/accuracy/top1">{value:.2f} %</b>' in page
    assert "SOLVER.BASE_LR" in page and "SOLVER.MAX_ITER" not in page and "OUTPUT_DIR" not in page
    # Of each run: training and validation loss, top-1, balanced accuracy and F1.
    assert page.count('<polyline class="line') == 2 * 5 and ">epoch</text>" in page
    assert "&lt;b&gt;" in page and "<b></b>" not in page and "largest difference" in page


def test_runs_without_config_or_with_other_classes_are_compared_in_part(runs, make_run, tmp_path):
    other = make_run(tmp_path / "other", ["c", "d"])
    page = write_comparison([runs[0], other], tmp_path / "out").read_text()
    assert "config.yaml is missing in other" in page and "The runs have different classes." in page
    assert ">iteration</text>" in page


def test_one_run_twice_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="two or more different runs"):
        write_comparison([runs[0], runs[0]], tmp_path)


def test_names_are_as_long_as_it_takes():
    assert short_names([Path("/a/b/run"), Path("/a/c/run")]) == ["b/run", "c/run"]
    assert short_names([Path("/a/b"), Path("/a/c")]) == ["b", "c"]
    assert flatten({"A": {"B": 1, "C": {"D": [2]}}, "E": 3}) == {"A.B": 1, "A.C.D": [2], "E": 3}
