"""The rank of a process, as torchrun or Slurm assigned it, or as we assign it to the processes that we start."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from imgcls.errors import UserError

# A Slurm batch script itself has SLURM_PROCID and SLURM_NTASKS, too, but none of these.
_SET_FOR_SRUN = {"SLURM_STEP_NUM_TASKS", "SLURM_LAUNCH_NODE_IPADDR", "MASTER_ADDR"}


@dataclass(frozen=True)
class ProcessRank:
    """One process among all of a run.

    Attributes:
        url: the ``init_method`` of torch.distributed.
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
        """Machines of the run."""
        return self.world_size // self.local_world_size


def first_local_rank(processes: int, num_machines: int, machine_rank: int, dist_url: str) -> ProcessRank:
    """The rank of the first process that we start on this machine; see ``launch`` for the arguments.

    Raises:
        UserError: a number out of range, or an invalid address.
    """
    if num_machines < 1:
        raise UserError(f"the number of machines is {num_machines}; allowed: 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise UserError(f"the rank of this machine is {machine_rank}; allowed: 0 to {num_machines - 1}")
    if dist_url == "auto":
        if num_machines > 1:
            raise UserError(
                f"--dist-url is auto for {num_machines} machines; give all of them the address and a free port of the "
                "first one: --dist-url tcp://HOST:PORT"
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dist_url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    if not re.fullmatch(r"tcp://.+:\d+|file://.+|env://", dist_url):
        raise UserError(f"--dist-url is {dist_url}; allowed: auto, tcp://HOST:PORT, file://PATH, env://")
    return ProcessRank(machine_rank * processes, num_machines * processes, 0, processes, dist_url, "spawn")


def find_rank(env: Mapping[str, str]) -> ProcessRank | None:
    """The rank that torchrun or srun has put into the environment; None if neither has started this process.

    torchrun takes precedence, as it may itself be a task of srun.

    Raises:
        UserError: variables are missing or contradict each other.
    """
    if "LOCAL_RANK" in env:
        return _torchrun(env)
    if "SLURM_PROCID" in env and _SET_FOR_SRUN & env.keys():
        return _srun(env)
    return None


def _torchrun(env: Mapping[str, str]) -> ProcessRank:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in env]
    if missing:
        raise UserError(f"LOCAL_RANK is set, but not {', '.join(missing)}; start with torchrun, or unset LOCAL_RANK")
    rank, world_size, local_rank, local_world_size = (int(env[name]) for name in names)
    return ProcessRank(rank, world_size, local_rank, local_world_size, url="env://", launcher="torchrun")


def _srun(env: Mapping[str, str]) -> ProcessRank | None:
    world_size = int(_first(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    if world_size == 1:
        return None  # one process on an allocated machine, which may start others
    # "4" or "4(x2)"; if nodes differ, "4,3".
    tasks = _first(env, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
    even = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)
    if even is None:
        raise UserError(f"srun started {tasks} tasks per node; every node needs the same number, see --ntasks-per-node")
    return ProcessRank(
        rank=int(env["SLURM_PROCID"]),
        world_size=world_size,
        local_rank=int(_first(env, "SLURM_LOCALID")),
        local_world_size=int(even[1]),
        url=_slurm_url(env),
        launcher="srun",
    )


def _slurm_url(env: Mapping[str, str]) -> str:
    """An address on the machine of rank 0, with a port that depends on job and step, below the ephemeral ones."""
    # The first node of the step. The host where srun was called may be a login node.
    host = env.get("MASTER_ADDR") or first_host(_first(env, "SLURM_STEP_NODELIST", "SLURM_LAUNCH_NODE_IPADDR"))
    port = env.get("MASTER_PORT")
    if port is None:
        port = str(16384 + (int(_first(env, "SLURM_JOB_ID")) * 7 + int(env.get("SLURM_STEP_ID", 0))) % 16384)
    return f"tcp://{host}:{port}"


def first_host(nodelist: str) -> str:
    """The first name of Slurm's ``gpu[07-09,12],login1``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodelist).split(",")[0]


def _first(env: Mapping[str, str], *names: str) -> str:
    for name in names:
        if name in env:
            return env[name]
    raise UserError(f"SLURM_PROCID is set, but not {' or '.join(names)}; start with srun, or unset SLURM_PROCID")
