"""Two processes in a gloo group, one of which is hit. Who started them (torchrun, in the real world) ends neither."""

import pytest
from harness.compare import differences
from harness.faults import RANDOM, Fault
from harness.survive import BOUND, SCRIPTS, Job, newest, survive

MOMENTS = ["at an iteration border", RANDOM, "in a checkpoint's file", "in evaluation"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_of_two_is_killed(script, images, whole, tmp_path):
    job = Job(script, images, ranks=2)
    folder, seconds = whole(job)
    kills, runs = survive(job, tmp_path, MOMENTS, 0, seconds / 2)
    assert {kill.rank for kill in kills} == {0, 1} and max(kill.others for kill in kills) < BOUND
    for run in runs:
        assert differences(folder, run) == []


@pytest.mark.parametrize("script, number", [(SCRIPTS[0], "SIGTERM"), (SCRIPTS[1], "SIGUSR1")])
def test_one_of_two_is_told_to_leave(script, number, images, whole, tmp_path):
    job = Job(script, images, ranks=2)
    attempt = job.start(tmp_path, {1: Fault(number, 10)})
    assert attempt.wait(BOUND) == [75, 75], attempt.said()
    assert newest(tmp_path) == 9 and (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    job.finish(tmp_path)
    assert differences(whole(job)[0], tmp_path) == []
