"""What the processes of test_launch.py run: a module of its own, as they import it."""

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.utils import comm
from torch import distributed

from imgcls.engine.launch import launch
from imgcls.errors import exit_on_user_error


def tell(folder: str) -> None:
    """Writes who this process is, and what all of them sum up to."""
    total = torch.tensor([10 ** comm.get_rank()])
    distributed.all_reduce(total)
    said = [comm.get_world_size(), comm.get_local_rank(), comm.get_local_size(), total.item(), torch.get_num_threads()]
    Path(folder, str(comm.get_rank())).write_text(json.dumps(said))


def lose_one(folder: str) -> None:
    """Rank 1 is killed while rank 0 waits for it."""
    tell(folder)
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.all_reduce(torch.zeros(1))


if __name__ == "__main__":
    with exit_on_user_error():
        launch(tell, sys.argv[1], device="cpu", timeout=timedelta(seconds=60))
