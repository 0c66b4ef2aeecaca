import os
import signal
import time

import pytest

from imgcls.data.shards.workers import run_jobs
from imgcls.errors import UserError


def count_to(number, step):
    for _ in range(number):
        step()
    return number, os.getpid()


def fail_or_wait(path, error, step):
    """Raises ``error``, or works until it is told to stop and then creates a file."""
    if error is not None:
        time.sleep(0.2)  # until the other job has started
        raise error
    try:
        while True:
            step()
            time.sleep(0.01)
    finally:
        path.write_text("stopped")


def kill_itself(step):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 3])
def test_all_jobs_are_done_by_the_given_number_of_processes(processes):
    results = list(run_jobs(count_to, ((i,) for i in range(20)), processes, total=190))
    assert sorted(number for number, _ in results) == list(range(20))
    assert len({pid for _, pid in results} - {os.getpid()}) <= processes
    assert list(run_jobs(count_to, (), processes, total=0)) == []


@pytest.mark.parametrize("error", [UserError("bad"), OSError(28, "No space left on device")])
def test_an_exception_stops_the_other_workers(tmp_path, error):
    jobs = [(tmp_path / "other", None), (tmp_path / "failing", error)]
    with pytest.raises(type(error), match=str(error).replace("[", r"\[")):
        list(run_jobs(fail_or_wait, jobs, 2, total=10))
    assert (tmp_path / "other").exists() and not (tmp_path / "failing").exists()


def test_workers_stop_when_the_results_are_no_longer_wanted(tmp_path):
    results = run_jobs(first_or_wait, [(tmp_path / "other",), (None,)], 2, total=10)
    assert next(results) == "first"
    results.close()
    assert (tmp_path / "other").exists()


def first_or_wait(path, step):
    return fail_or_wait(path, None, step) if path else "first"


def test_a_killed_worker_is_a_clear_error():
    with pytest.raises(UserError, match="a worker process was killed, perhaps because memory ran out; fewer processes"):
        list(run_jobs(kill_itself, [(), ()], 2, total=2))
