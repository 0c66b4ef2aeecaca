import json
import logging
import math

import pytest
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, JSONWriter

from imgcls.engine.run_state import BestTracker, RunLog


def test_keeps_the_largest_and_where_it_was():
    best = BestTracker("a/top1")
    assert [best.update({"x": 0.0, "a/top1": value}, i) for i, value in enumerate([3.0, 5.0, 5.0, 4.0])] == [
        True, True, False, False,
    ]  # fmt: skip
    assert (best.value, best.iteration, best.waited) == (5.0, 1, 2) and not best.stop


def test_the_first_metric_without_a_name_and_never_a_nan():
    best = BestTracker()
    assert best.update({"mAP": 2.0, "F1": 9.0}, 0) and best.value == 2.0
    assert not best.update({"mAP": math.nan, "F1": 10.0}, 1)
    assert not best.update({}, 2) and best.waited == 1, "no evaluation is no bad one"


def test_stops_when_patience_is_at_its_end_also_after_a_resume(caplog):
    best = BestTracker("m", patience=2)
    for iteration, value in enumerate([1.0, 0.5]):
        best.update({"m": value}, iteration)
    again = BestTracker("m", patience=2)
    again.load_state_dict(best.state_dict())
    assert not again.stop
    with caplog.at_level(logging.INFO, "imgcls"):
        again.update({"m": 0.7}, 2)
    assert again.stop and "m was best with 1.0000 at iteration 0, 2 evaluations ago" in caplog.text


def test_unknown_metric_names_those_there_are():
    with pytest.raises(ValueError, match=r"TEST\.BEST_METRIC is 'top1'; the evaluation gives accuracy/top1, x"):
        BestTracker("top1").update({"accuracy/top1": 1.0, "x": 2.0}, 0)


def run(folder, start, stop, period, log=None):
    """Iterations of a loss that jumps about, with an evaluation now and then."""
    log = log or RunLog(str(folder))
    writer = JSONWriter(str(folder / "metrics.json"))
    with EventStorage(start) as storage:
        log.start(storage)
        for iteration in range(start, stop):
            storage.iter = iteration
            storage.put_scalars(loss=float(iteration * 7 % 11), time=1.0 + start)
            storage.put_scalar("lr", 1 / (iteration + 1), smoothing_hint=False)
            if iteration % 5 == 4:
                storage.put_scalar("accuracy/top1", float(iteration), smoothing_hint=False)
            if (iteration + 1) % period == 0:
                writer.write()
        state = log.state_dict()
    writer.close()
    return state


def read(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_lines_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path):
    """Wherever it was saved, whatever was written after that, with medians that reach back over the border."""
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole, 0, 60, period=7)
    for saved in (6, 7, 10, 25, 33):
        folder = tmp_path / str(saved)
        folder.mkdir()
        state = run(folder, 0, saved, period=7)
        with open(folder / "metrics.json", "a") as file:
            file.write('{"iteration": 99, "loss": 1.0}\n{"iteration": 1')  # of the run that was killed
        log = RunLog(str(folder))
        log.load_state_dict(json.loads(json.dumps(state)))
        run(folder, saved, 60, 7, log)
        assert read(folder) == read(whole), saved


def test_a_slower_process_does_not_remove_the_lines_that_the_first_one_has_written(tmp_path, monkeypatch):
    """Nothing makes the processes wait for each other between the start and a line that is still to be written."""
    path, logs = tmp_path / "metrics.json", []
    path.write_text('{"iteration": 8}\n{"iter')  # the second line was being written when the run was killed
    for _ in range(2):
        logs.append(RunLog(str(tmp_path)))
        logs[-1].load_state_dict({"scalars": [], "bytes": 17, "written": 8})
    with EventStorage(9) as storage:
        logs[0].start(storage)
        assert path.read_text() == '{"iteration": 8}\n'
        with path.open("a") as file:
            file.write('{"iteration": 17}\n')
        monkeypatch.setattr(comm, "is_main_process", lambda: False)
        logs[1].start(storage)
    assert read(tmp_path) == [{"iteration": 8}, {"iteration": 17}]


def test_a_state_is_of_plain_types_and_bounded(tmp_path):
    state = run(tmp_path, 0, 500, period=10)
    assert json.loads(json.dumps(state)) == state and len(json.dumps(state)) < 2000
