"""Where a process stands among those of a run."""

import re
import socket
from dataclasses import dataclass

from imgcls.errors import UserError


@dataclass(frozen=True)
class Place:
    """One process among all of a run.

    Attributes:
        url: where all processes meet, an ``init_method`` of torch.distributed.
        launcher: what started the process: ``"torchrun"``, ``"srun"`` or ``"spawn"`` (ours).
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    url: str
    launcher: str

    def __post_init__(self) -> None:
        # detectron2 finds the processes of a machine by their ranks.
        whole = self.world_size % self.local_world_size == 0
        if not whole or self.rank % self.local_world_size != self.local_rank:
            raise UserError(
                f"rank {self.rank} of {self.world_size} is process {self.local_rank} of {self.local_world_size} on its "
                "machine; every machine needs the same number of processes, with ranks in one block (Slurm: "
                "--ntasks-per-node and --distribution=block)"
            )

    @property
    def num_machines(self) -> int:
        return self.world_size // self.local_world_size


def own_place(processes: int, num_machines: int, machine_rank: int, dist_url: str) -> Place:
    """The first of the processes that we start on this machine.

    Args:
        dist_url: ``"auto"`` for a free port of this machine.

    Raises:
        ValueError: a number out of range, or an address that cannot be one.
    """
    if num_machines < 1:
        raise UserError(f"the number of machines is {num_machines}; allowed: 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise UserError(f"the rank of this machine is {machine_rank}; allowed: 0 to {num_machines - 1}")
    if dist_url == "auto":
        if num_machines > 1:
            raise UserError(
                f"--dist-url is auto for {num_machines} machines; give all of them the first one's address and a port "
                "that is free there: --dist-url tcp://HOST:PORT"
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if not re.fullmatch(r"tcp://.+:\d+|file://.+|env://", dist_url):
        raise UserError(f"--dist-url is {dist_url}; allowed: auto, tcp://HOST:PORT, file://PATH, env://")
    return Place(machine_rank * processes, num_machines * processes, 0, processes, dist_url, "spawn")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
