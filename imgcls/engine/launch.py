"""Joining the processes of a run into one group, alike for all versions of detectron2."""

import dataclasses
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed, multiprocessing

from imgcls.engine.ranks import ProcessRank, find_rank, first_local_rank
from imgcls.engine.supervise import end_with_parent, supervise
from imgcls.errors import UserError

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


def choose_gpu(place: ProcessRank, here: int) -> int:
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


def check_gpus(device: str, place: ProcessRank) -> None:
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


def join_group(place: ProcessRank, device: str, backend: str, timeout: timedelta) -> None:
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


# A process that waits this long for another one gives up.
TIMEOUT = timedelta(minutes=10)

_logger = logging.getLogger(__name__)


def launch(
    main: Callable[[Any], Any],
    args: Any,
    *,
    device: str,
    processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    backend: str | None = None,
    timeout: timedelta = TIMEOUT,
) -> Any:
    """Runs ``main(args)`` in every process of a run, in a process group where there are several.

    A process that torchrun or srun has started joins the others and starts none. Otherwise ``processes`` are spawned
    on this machine, where it is more than one.

    Args:
        main: a function of a module: spawned processes import it.
        device: ``MODEL.DEVICE``; each process on ``"cuda"`` gets a GPU of its own. Where there is none, or
            ``processes`` is 0, it is one process on the CPU.
        dist_url: ``tcp://HOST:PORT`` where the processes meet; ``"auto"`` finds a free port, on one machine.
        backend: ``"nccl"`` or ``"gloo"``; None chooses by the device.
        timeout: of collective operations.

    Returns:
        What ``main`` returns; None where processes were spawned.

    Raises:
        ValueError: processes, machines, device and backend do not fit together.
        ProcessRaisedException, ProcessExitedException, SystemExit: a spawned process failed, see ``supervise``.
    """
    if processes < 0:
        raise UserError(f"--num-gpus is {processes}; allowed: 0 (one process on the CPU) or more")
    usable = usable_device(device, processes)
    backend = choose_backend(usable, backend)
    place = find_rank(os.environ)
    if place is None:
        count = max(processes, 1) if usable == device else 1
        place = first_local_rank(count, num_machines, machine_rank, dist_url)
    else:
        _warn_of_other_numbers(place, processes, num_machines)
    if usable != device and processes > 0 and place.num_machines > 1:
        raise UserError(f"MODEL.DEVICE is {device} and this machine has no GPU; set it to cpu, on all machines")
    check_gpus(usable, place)
    if place.world_size == 1:
        return main(args)
    job = (main, args, usable, backend, timeout)
    if place.launcher != "spawn" or place.local_world_size == 1:
        return _run(place, *job)
    context = multiprocessing.start_processes(_spawned, (place, *job), place.local_world_size, join=False)
    return supervise(context, place.rank, timeout.total_seconds())


def usable_device(device: str, processes: int) -> str:
    """``MODEL.DEVICE``, or the CPU instead of CUDA where no GPU was asked for (0 processes) or there is none."""
    if device.startswith("cuda") and (processes == 0 or not torch.cuda.is_available()):
        return "cpu"
    return device


def _warn_of_other_numbers(place: ProcessRank, processes: int, num_machines: int) -> None:
    """1 is what a command line says that says nothing, and 0 chooses the CPU."""
    same = processes in (0, 1, place.local_world_size) and num_machines in (1, place.num_machines)
    if not same and place.local_rank == 0:
        _logger.warning(
            "%s decides: %d processes a machine, %d machines; the command line's %d and %d are not used",
            *(place.launcher, place.local_world_size, place.num_machines, processes, num_machines),
        )


def _spawned(index: int, first: ProcessRank, *job: Any) -> None:
    """What a spawned process does, the ``index``-th of its machine."""
    end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // first.local_world_size))
    _run(dataclasses.replace(first, rank=first.rank + index, local_rank=index), *job)


def _run(
    place: ProcessRank, main: Callable[[Any], Any], args: Any, device: str, backend: str, timeout: timedelta
) -> Any:
    join_group(place, device, backend, timeout)
    result = main(args)
    # Not after an exception: others may be in the middle of an operation, and this would wait for them.
    distributed.destroy_process_group()
    return result
