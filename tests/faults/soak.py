"""What scripts/soak.sh runs: the harness of the fault tests, for longer and on scikit-learn's handwritten digits."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from harness.compare import differences
from harness.faults import KILLS, RANDOM
from harness.survive import SCRIPTS, Job, Kill, survive

DIGITS = (
    "DATASETS.TRAIN", "('digits_train',)", "DATASETS.TEST", "('digits_test',)", "MODEL.CLSNET.INPUT_SIZE", "64",
    "MODEL.MNET.BLOCKS", "[]", "SOLVER.IMS_PER_BATCH", "32", "SOLVER.MAX_ITER", "90", "SOLVER.STEPS", "(40, 70)",
    "SOLVER.CHECKPOINT_PERIOD", "13", "SOLVER.LOG_PERIOD", "9", "TEST.EVAL_PERIOD", "20",
)  # fmt: skip
# Loader workers and processes.
NUMBERS = ((0, 1), (2, 1), (0, 2), (2, 2))
JOBS = [Job(script, DIGITS, workers, ranks) for workers, ranks in NUMBERS for script in SCRIPTS]


def soak(jobs: Sequence[Job], kills: int, folder: Path) -> int:
    """Kills every job about equally often and prints what happens.

    Args:
        jobs: the ends of each are compared with an uninterrupted run without loader workers.
        folder: for the runs.

    Returns:
        0 where all of them have the same bits, else 1.
    """
    random, moments, same = Random(0), Counter(), []

    def tell(kill: Kill) -> None:
        moments[kill.fault.moment] += 1
        print(f"kill {moments.total()}: {_describe(kill)}", flush=True)

    for number, job in enumerate(jobs):
        whole = folder / f"{number}-whole"
        seconds = replace(job, workers=0).finish(whole)
        print(f"{job}: {seconds:.1f} s without interruption", flush=True)
        share = (kills - moments.total()) // (len(jobs) - number)
        # Half of the kills come at any time, the others at one of the moments that are worst.
        chosen = [random.choice([RANDOM, random.choice(list(KILLS))]) for _ in range(share)]
        for run in survive(job, folder / str(number), chosen, number, seconds, tell)[1]:
            found = differences(whole, run)
            same.append(not found)
            for place in found[:10]:
                print(f"not the same: {place}", flush=True)
    for moment, count in moments.most_common():
        print(f"{count:4} {moment}")
    print(
        f"{moments.total()} kills; {same.count(True)} of {len(same)} runs ended with the bits of an uninterrupted one"
    )
    return int(not all(same))


def _describe(kill: Kill) -> str:
    of = f" of process {kill.rank}" if kill.rank else ""
    resumption = "starts again" if kill.resumed_from < 0 else f"resumes after iteration {kill.resumed_from}"
    return f"{kill.fault}{of}, {kill.seconds:.2f} s after the start; {resumption}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(soak(JOBS, parser.parse_args().kills, Path(temporary)))
