"""A run that is killed again and again, and resumed until it ends."""

import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .faults import OF_RANK_0, RANDOM, Fault, Sabotage, draw
from .process import Attempt

# Seconds in which a process must end by itself after another one of the run was killed.
BOUND = 30.0
CONFIG = Path(__file__).parents[1] / "everything.yaml"
SCRIPTS = ("train_net_builtin.py", "train_net.py")


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        script: one of ``SCRIPTS``.
        options: ``KEY VALUE`` pairs for ``everything.yaml``.
        workers: loader workers of each process.
        ranks: number of processes.
    """

    script: str
    options: tuple[str, ...]
    workers: int = 0
    ranks: int = 1

    def __str__(self) -> str:
        return f"{self.script}, {self.ranks} processes, {self.workers} loader workers"

    def start(self, folder: Path, faults: dict[int, Fault | Sabotage] | None = None) -> Attempt:
        """Starts it in a folder, or resumes what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        options = [*self.options, "DATALOADER.NUM_WORKERS", str(self.workers), "OUTPUT_DIR", str(folder)]
        arguments = ["--config-file", str(CONFIG), *options]
        if newest(folder) >= 0:
            arguments[:0] = ["--resume", str(folder)] if self.script == "train_net.py" else ["--resume"]
        else:
            # A new run adds its lines to those of whatever run was there before.
            (folder / "metrics.json").unlink(missing_ok=True)
        return Attempt(self.script, arguments, folder / "process.log", self.ranks, faults)

    def finish(self, folder: Path) -> float:
        """Starts or resumes it, and waits until it has ended well; gives the seconds that it took."""
        attempt = self.start(folder)
        codes = attempt.wait()
        assert codes == [0] * self.ranks, attempt.said()
        return time.monotonic() - attempt.started


@dataclass(frozen=True)
class Kill:
    """A kill that was survived.

    Attributes:
        fault: how it came about.
        rank: the process that was killed.
        seconds: it had lived for.
        resumed_from: iteration of the newest checkpoint afterwards, -1 for none.
        others: seconds after which the other processes had ended by themselves.
    """

    fault: Fault
    rank: int
    seconds: float
    resumed_from: int
    others: float


def survive(
    job: Job,
    folder: Path,
    moments: Sequence[str],
    seed: int,
    seconds: float,
    tell: Callable[[Kill], None] = lambda kill: None,
) -> tuple[list[Kill], list[Path]]:
    """Kills a job at each of the moments, in this order; resumes it after each, until it ends.

    A run that ends before it is killed is followed by a new one, so that there are as many kills as moments.

    Args:
        folder: for the runs' folders.
        moments: of ``KILLS``, or ``RANDOM``.
        seed: of when exactly.
        seconds: that the job takes.
        tell: hears of every kill.

    Returns:
        The kills, and the folders of the runs that have ended.
    """
    random, kills, ended = Random(seed), [], []
    while len(kills) < len(moments):
        run = folder / str(len(ended))
        kill = strike(job, run, draw(moments[len(kills)], random, seconds), random.randrange(job.ranks))
        if kill is None:
            ended.append(run)
        else:
            kills.append(kill)
            tell(kill)
    run = folder / str(len(ended))
    job.finish(run)
    return kills, [*ended, run]


def strike(job: Job, run: Path, fault: Fault, rank: int = 0) -> Kill | None:
    """Starts or resumes a job and kills it; None where it ended before that."""
    if fault.moment in OF_RANK_0:
        rank = 0
    attempt = job.start(run, {rank: fault})
    if fault.moment == RANDOM:
        # While they meet, processes wait for each other for longer than a test has time.
        ready = job.ranks == 1 or attempt.training.wait(BOUND)
        attempt.kill(rank, after=fault.seconds if ready else 0.0)
    [code] = attempt.wait(ranks=[rank])
    died = time.monotonic()
    others = attempt.wait(BOUND, [other for other in range(job.ranks) if other != rank])
    if code == 0:
        assert set(others) <= {0}, attempt.said()
        return None
    assert code == -signal.SIGKILL, attempt.said()
    return Kill(fault, rank, died - attempt.started, newest(run), time.monotonic() - died)


def newest(folder: Path) -> int:
    """The iteration that a run in this folder has to go on from, -1 where there is nothing yet."""
    numbered = [int(re.sub(r"\D", "", path.stem)) for path in folder.glob("model_[0-9]*.pth")]
    return max(numbered, default=-1)
