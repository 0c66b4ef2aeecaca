"""A run with loader workers, when something befalls them."""

import os
import signal
import time

from harness.compare import differences
from harness.faults import Fault
from harness.survive import BOUND, Job, newest


def test_a_killed_worker_ends_the_run(images, whole, for_both_trainers, tmp_path):
    def check(script):
        job, folder = Job(script, images, workers=2), tmp_path / script
        attempt = job.start(folder, {0: Fault("a loader worker is killed", 10)})
        assert attempt.wait(BOUND) == [1], attempt.said()
        # What the training process was doing with it decides which of them.
        assert "DataLoader worker (pid" in attempt.said() or "Connection reset by peer" in attempt.said()
        job.finish(folder)
        assert differences(whole(Job(script, images))[0], folder) == []

    for_both_trainers(check)


def test_a_signal_to_all_processes_means_the_training_process(images, whole, for_both_trainers, tmp_path):
    """Schedulers send it so."""

    def check(script):
        job, folder = Job(script, images, workers=2), tmp_path / script
        attempt = job.start(folder)
        deadline = time.monotonic() + BOUND
        while newest(folder) < 6:
            assert time.monotonic() < deadline, attempt.said()
            time.sleep(0.01)
        os.killpg(attempt.processes[0].pid, signal.SIGTERM)
        assert attempt.wait(BOUND) == [75], attempt.said()
        job.finish(folder)
        assert differences(whole(Job(script, images))[0], folder) == []

    for_both_trainers(check)
