"""Joining the processes of a run into one group, alike for all versions of detectron2."""

from datetime import timedelta

import torch
from detectron2.utils import comm
from torch import distributed

from imgcls.errors import UserError

from .place import Place

_BACKENDS = ("nccl", "gloo")


def choose_backend(device: str, asked: str | None = None) -> str:
    """NCCL for GPUs and gloo for the CPU, unless another is asked for.

    Raises:
        ValueError: unknown, or not for this device.
    """
    fitting = "nccl" if device.startswith("cuda") else "gloo"
    if asked not in (None, *_BACKENDS):
        raise UserError(f"--dist-backend is {asked}; allowed: {', '.join(_BACKENDS)}")
    if asked == "nccl" and fitting == "gloo":
        raise UserError(f"--dist-backend is nccl, which needs GPUs, and the device is {device}; use gloo")
    return asked or fitting


def choose_gpu(place: Place, here: int) -> int:
    """The index of a process's own GPU among the ``here`` that it sees.

    Raises:
        ValueError: there are not enough.
    """
    if place.local_world_size <= here:
        return place.local_rank
    if here == 1 and place.launcher == "srun":
        return 0  # --gpus-per-task shows every task its own only
    raise UserError(
        f"{place.local_world_size} processes on this machine (--num-gpus; torchrun: --nproc-per-node; Slurm: "
        f"--ntasks-per-node) need a GPU each; it has {here}"
    )


def check_gpus(device: str, place: Place) -> None:
    """Looks for the GPU of every process of this machine, before any is started.

    Raises:
        ValueError: there are not enough, or ``device`` names one that is not there or is for all of several processes.
    """
    if not device.startswith("cuda"):
        return
    here, (_, _, index) = torch.cuda.device_count(), device.partition(":")
    if index and place.world_size > 1:
        raise UserError(
            f"MODEL.DEVICE is {device} for {place.world_size} processes; write cuda, they share the GPUs out"
        )
    if index and int(index) >= here:
        raise UserError(f"MODEL.DEVICE is {device}; this machine has {here} GPUs, counted from 0")
    choose_gpu(place, here)


def join_group(place: Place, device: str, backend: str, timeout: timedelta) -> None:
    """Makes the process group, and detectron2's of the processes of this machine.

    Args:
        device: ``"cuda"`` gives every process a GPU of its own, as the current one.
        timeout: for the others to come, and of all collective operations afterwards.

    Raises:
        ValueError: the processes did not meet.
    """
    if device == "cuda":
        torch.cuda.set_device(choose_gpu(place, torch.cuda.device_count()))
    try:
        distributed.init_process_group(
            backend, init_method=place.url, world_size=place.world_size, rank=place.rank, timeout=timeout
        )
    except (distributed.DistError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"rank {place.rank} of {place.world_size} did not meet the others at {place.url}: {reason}; --dist-url "
            "must name a free port of the first machine that all can reach, and all must have been started"
        ) from error
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(place.local_world_size)
    else:  # 0.6: its launcher does this itself
        for machine in range(place.num_machines):
            first = machine * place.local_world_size
            group = distributed.new_group(range(first, first + place.local_world_size))
            if first <= place.rank < first + place.local_world_size:
                comm._LOCAL_PROCESS_GROUP = group
    # Whoever comes late comes now, not in the first operation of the training.
    comm.synchronize()
