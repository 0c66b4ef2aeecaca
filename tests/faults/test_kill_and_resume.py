"""The promise: a run that is killed at any moment and resumed ends with the same bits as one that was not.

Real training processes of both trainers get a SIGKILL, with everything switched on that keeps a state or draws random
numbers. A run may be killed many times before it ends.
"""

import pytest
from harness.compare import differences
from harness.faults import KILLS, RANDOM, Fault
from harness.survive import Job, strike, survive


def check(job, moments, seed, whole, folder):
    """As many kills as moments, and then no difference to the run that was not interrupted, without workers."""
    _, seconds = whole(job)
    kills, runs = survive(job, folder, moments, seed, seconds)
    assert len(kills) == len(moments)
    for run in runs:
        assert differences(whole(Job(job.script, job.options))[0], run) == [], kills


def test_killed_at_10_random_moments(images, whole, for_both_trainers, tmp_path):
    for_both_trainers(lambda script: check(Job(script, images), [RANDOM] * 10, 0, whole, tmp_path / script))


def test_killed_at_random_moments_with_loader_workers(images, whole, for_both_trainers, tmp_path):
    for_both_trainers(lambda script: check(Job(script, images, workers=2), [RANDOM] * 5, 1, whole, tmp_path / script))


def test_killed_at_random_moments_on_packed_data(shards, whole, for_both_trainers, tmp_path):
    for_both_trainers(lambda script: check(Job(script, shards, workers=2), [RANDOM] * 3, 3, whole, tmp_path / script))


@pytest.mark.parametrize("moment", KILLS)
def test_killed_at_the_worst_moments(moment, images, whole, for_both_trainers, tmp_path):
    for_both_trainers(lambda script: check(Job(script, images), [moment] * 5, 2, whole, tmp_path / script))


def test_killed_behind_the_very_last_save(images, whole, for_both_trainers, tmp_path):
    """Nothing is left to train then, and everything is there."""

    def run(script):
        job, folder = Job(script, images), tmp_path / script
        done = (whole(job)[0] / "process.log").read_text()
        saves, best = done.count("checkpoint saved:"), done.count("model_best.pth")
        fault = Fault("between last_checkpoint and the removal of old ones", saves)
        if script == "train_net.py":  # which makes the last one checkpoint.pth, too
            fault = Fault("between last_checkpoint and checkpoint.pth", saves - best)
        assert strike(job, folder, fault) is not None
        job.finish(folder)
        assert "nothing is left to train" in (folder / "process.log").read_text()
        assert differences(whole(job)[0], folder) == []

    for_both_trainers(run)
