"""Real processes, forked so that they start at once; they compute nothing."""

import multiprocessing as mp
import os
import signal
import sys
import time
from multiprocessing.util import Finalize

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from imgcls.engine import supervise as module
from imgcls.engine.supervise import end_with_parent, supervise


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.3)


@pytest.fixture
def watch_two():
    """Runs two functions in processes of their own and watches them; both must be gone afterwards."""

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


def test_all_is_well(watch_two):
    watch_two(well, lambda: time.sleep(0.5))


def test_a_killed_process_ends_the_run_though_the_other_is_deaf(watch_two, caplog):
    with pytest.raises(ProcessExitedException, match=r"rank 5 \(process \d+\) was ended by SIGKILL"):
        watch_two(hang, be_killed, first_rank=4)
    assert "does not end by itself: kill" in caplog.text


@pytest.mark.parametrize("other", [well, hang, lambda: time.sleep(60)])
def test_an_exception_ends_the_run(watch_two, other):
    with pytest.raises(ProcessRaisedException, match=r"rank 1 (.|\n)*ValueError: a bug"):
        watch_two(other, fail)


def test_a_process_that_raised_and_hangs_on_its_way_out(watch_two):
    def fail_slowly():
        Finalize(None, hang, exitpriority=1)
        time.sleep(0.5)
        fail()

    with pytest.raises(ProcessRaisedException, match=r"rank 0 (.|\n)*ValueError: a bug"):
        watch_two(fail_slowly, hang)


def test_one_that_leaves_lets_the_other_finish(watch_two, tmp_path):
    def save_and_leave():
        time.sleep(1)
        (tmp_path / "saved").touch()
        leave()

    with pytest.raises(SystemExit) as stop:
        watch_two(save_and_leave, leave)
    assert stop.value.code == 75 and (tmp_path / "saved").exists()


def test_what_goes_wrong_while_leaving_counts(watch_two):
    with pytest.raises(ProcessRaisedException, match="rank 0"):
        watch_two(lambda: time.sleep(0.5) or fail(), leave)


def test_patience_with_one_that_does_not_leave_ends(watch_two):
    with pytest.raises(SystemExit) as stop:
        watch_two(leave, hang, patience=0.2)
    assert stop.value.code == 75


@pytest.fixture(params=[signal.SIGTERM, signal.SIGUSR1])
def number(request):
    """A signal that this process survives; the processes that it starts must see to it themselves."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    after = signal.signal(request.param, before)
    assert after is signal.SIG_IGN  # not supervise()'s any more


def test_signals_reach_all_processes(watch_two, number):
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
        watch_two(lambda: leave_when_told(True), lambda: leave_when_told(False))
    assert stop.value.code == 75


def test_signals_that_processes_die_of_end_the_run_as_they_would_one_process(watch_two, number):
    def send():
        signal.signal(number, signal.SIG_DFL)
        while True:
            os.kill(os.getppid(), number)
            time.sleep(0.05)

    with pytest.raises(SystemExit) as stop:
        watch_two(send, send)
    assert stop.value.code == 128 + number


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
