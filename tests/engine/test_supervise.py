"""Real processes, forked so that they start at once; they compute nothing."""

import multiprocessing as mp
import os
import pickle
import signal
import sys
import time
from multiprocessing.util import Finalize
from types import SimpleNamespace

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from imgcls.engine import supervise as module
from imgcls.engine.supervise import end_with_parent, find_failure, supervise
from imgcls.errors import user_message


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.3)


@pytest.fixture
def supervise_two():
    """Runs two functions in processes of their own and supervises them; both must be gone afterwards."""

    def run(*jobs, **options):
        start = time.monotonic()
        context = start_processes(lambda index: jobs[index](), nprocs=2, join=False, start_method="fork")
        try:
            supervise(context, **options)
        finally:
            assert all(process.exitcode is not None for process in context.processes)
            assert time.monotonic() - start < 10

    return run


def well():
    pass


def leave():
    sys.exit(75)


def fail():
    raise ValueError("a bug")


def hang():
    """Deaf to SIGTERM, as one that waits in a collective operation."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_all_is_well(supervise_two):
    supervise_two(well, lambda: time.sleep(0.5))


def test_a_killed_process_ends_the_run_though_the_other_is_deaf(supervise_two, caplog):
    with pytest.raises(ProcessExitedException, match=r"rank 5 \(process \d+\) was ended by SIGKILL"):
        supervise_two(hang, be_killed, first_rank=4)
    assert "does not end by itself: kill" in caplog.text


@pytest.mark.parametrize("other", [well, hang, lambda: time.sleep(60)])
def test_an_exception_ends_the_run(supervise_two, other):
    with pytest.raises(ProcessRaisedException, match=r"rank 1 (.|\n)*ValueError: a bug"):
        supervise_two(other, fail)


def test_a_process_that_raised_and_hangs_on_its_way_out(supervise_two):
    def fail_slowly():
        Finalize(None, hang, exitpriority=1)
        time.sleep(0.5)
        fail()

    with pytest.raises(ProcessRaisedException, match=r"rank 0 (.|\n)*ValueError: a bug"):
        supervise_two(fail_slowly, hang)


def test_one_that_leaves_lets_the_other_finish(supervise_two, tmp_path):
    def save_and_leave():
        time.sleep(1)
        (tmp_path / "saved").touch()
        leave()

    with pytest.raises(SystemExit) as stop:
        supervise_two(save_and_leave, leave)
    assert stop.value.code == 75 and (tmp_path / "saved").exists()


def test_what_goes_wrong_while_leaving_counts(supervise_two):
    with pytest.raises(ProcessRaisedException, match="rank 0"):
        supervise_two(lambda: time.sleep(0.5) or fail(), leave)


def test_patience_with_one_that_does_not_leave_ends(supervise_two):
    with pytest.raises(SystemExit) as stop:
        supervise_two(leave, hang, patience=0.2)
    assert stop.value.code == 75


@pytest.fixture(params=[signal.SIGTERM, signal.SIGUSR1])
def number(request):
    """A signal that this process survives; the processes that it starts must see to it themselves."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    after = signal.signal(request.param, before)
    assert after is signal.SIG_IGN  # not supervise()'s any more


def test_signals_reach_all_processes(supervise_two, number):
    def leave_when_told(sends):
        told = []
        signal.signal(number, lambda *_: told.append(1))
        ready.wait()
        while not told:
            if sends:
                os.kill(os.getppid(), number)
            time.sleep(0.05)
        leave()

    ready = mp.get_context("fork").Barrier(2)
    with pytest.raises(SystemExit) as stop:
        supervise_two(lambda: leave_when_told(True), lambda: leave_when_told(False))
    assert stop.value.code == 75


def test_a_preemption_that_ends_the_processes_is_still_a_preemption(supervise_two, number):
    def send():
        signal.signal(number, signal.SIG_DFL)
        while True:
            os.kill(os.getppid(), number)
            time.sleep(0.05)

    with pytest.raises(SystemExit) as stop:
        supervise_two(send, send)
    assert stop.value.code == 75  # preempted before it could be saved: the job is requeued


def test_processes_do_not_outlive_the_one_that_started_them():
    """A process starts another one and is killed; both hold a pipe open until they end."""
    context = mp.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child():
        end_with_parent()
        theirs.send(os.getpid())
        time.sleep(60)

    def parent():
        context.Process(target=child).start()
        time.sleep(60)

    started = context.Process(target=parent)
    started.start()
    theirs.close()
    ours.recv()
    started.kill()
    assert ours.poll(10)
    with pytest.raises(EOFError):
        ours.recv()
    started.join()


@pytest.fixture
def ended(tmp_path):
    """``ended(0, -9, (1, "traceback", 5))``: what is left of processes: exit codes, text and time of an exception."""

    def make(*ends):
        processes, files = [], []
        for index, end in enumerate(ends):
            code, trace, when = end if isinstance(end, tuple) else (end, "", 0)
            files.append(str(tmp_path / str(index)))
            processes.append(SimpleNamespace(exitcode=code, pid=100 + index))
            if trace:
                with open(files[-1], "wb") as file:
                    pickle.dump(trace, file)
                os.utime(files[-1], ns=(when, when))
        return SimpleNamespace(processes=processes, error_files=files)

    return make


def test_none_while_all_run_or_are_done(ended):
    assert find_failure(ended(0, None)) is None


@pytest.mark.parametrize(
    ("ends", "cause"),
    [
        ([(1, "connection lost", 5), -9], 1),
        ([(1, "connection lost", 6), (1, "the reason", 5), 0], 1),
        ([75, (1, "disk full", 7)], 1),
        ([75, -11], 1),
        ([0, 75], 1),
        # It raised, and was ended by us as it hung on its way out.
        ([75, (-9, "the reason", 5)], 1),
        ([0, (None, "the reason", 5)], 1),
    ],
)
def test_the_cause_among_several(ended, ends, cause):
    assert find_failure(ended(*ends)).index == cause


def test_a_signal_is_named(ended):
    with pytest.raises(ProcessExitedException, match=r"^rank 5 \(process 101\) was ended by SIGKILL; ") as raised:
        find_failure(ended(0, -9)).report(5, [])
    assert raised.value.exit_code == -9 and raised.value.signal_name == "SIGKILL"
    with pytest.raises(ProcessExitedException, match=r"was ended by signal 35$"):
        find_failure(ended(-35)).report(0, [])


def test_a_signal_that_was_handed_on_is_no_error(ended):
    with pytest.raises(SystemExit) as stop:
        find_failure(ended(-15, -15)).report(0, [15])
    assert stop.value.code == 75


def test_an_exception_comes_with_its_traceback(ended):
    with pytest.raises(ProcessRaisedException, match=r"rank 3 \(process 100\) failed:\n\nTraceback") as raised:
        find_failure(ended((1, "Traceback\nimgcls.errors.UserError: KEY is 3\n", 5))).report(3, [])
    assert user_message(raised.value) == "KEY is 3"


def test_an_exit_code_is_passed_on(ended, caplog):
    with pytest.raises(SystemExit) as stop:
        find_failure(ended(75, 75)).report(0, [])
    assert stop.value.code == 75 and "rank 0 (process 100) left with exit code 75" in caplog.text
