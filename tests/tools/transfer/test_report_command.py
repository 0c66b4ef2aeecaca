"""Mistakes on the command line; tests/scripts/test_transfer_experiment.py runs it on an experiment."""

import json


def test_an_experiment_that_is_not_finished_is_one_line(run_tool, tmp_path):
    folder = tmp_path / "out put"
    (folder / "handoff-1").mkdir(parents=True)
    (folder / "handoff-1" / "metrics.json").write_text(json.dumps({"iteration": 1, "bbox/AP": 1.0, "bbox/AP50": 1.0}))
    code, out, error = run_tool("transfer_report.py", folder)
    assert (code, out) == (2, "") and len(error.splitlines()) == 1
    assert error.startswith(f"error: {folder} has runs handoff-[1] and random-[]; ")
    assert not (folder / "table.md").exists()
