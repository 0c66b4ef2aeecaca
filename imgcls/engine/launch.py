"""Starts the processes of a run, on GPUs or a CPU, or joins those that torchrun or Slurm has started."""

import dataclasses
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed, multiprocessing

from imgcls.engine.preempt import leave_at_once
from imgcls.engine.ranks import ProcessRank, find_rank, first_local_rank
from imgcls.engine.supervise import end_with_parent, supervise
from imgcls.errors import UserError

_BACKENDS = ("nccl", "gloo")
# How long a rank waits for another one.
TIMEOUT = timedelta(minutes=10)

_logger = logging.getLogger(__name__)


def choose_backend(device: str, asked: str | None = None) -> str:
    """NCCL for GPUs and gloo for the CPU, unless another is asked for.

    Raises:
        UserError: the backend is unknown, or does not work with this device.
    """
    fitting = "nccl" if device.startswith("cuda") else "gloo"
    if asked not in (None, *_BACKENDS):
        raise UserError(f"--dist-backend is {asked}; allowed: {', '.join(_BACKENDS)}")
    if asked == "nccl" and fitting == "gloo":
        raise UserError(f"--dist-backend is nccl, which needs GPUs, and the device is {device}; use gloo")
    return asked or fitting


def choose_gpu(rank: ProcessRank, here: int) -> int:
    """The index of a process's own GPU among the ``here`` visible ones; a ``UserError`` if there are too few."""
    if rank.local_world_size <= here:
        return rank.local_rank
    if here == 1 and rank.launcher == "srun":
        return 0  # with --gpus-per-task, each task sees only its own GPU
    raise UserError(
        f"{rank.local_world_size} processes on this machine (--num-gpus or --multiprocessing-distributed; torchrun: "
        f"--nproc-per-node; Slurm: --ntasks-per-node) need a GPU each; it has {here}"
    )


def check_gpus(device: str, rank: ProcessRank) -> None:
    """Checks that every process of this machine has its GPU, before any is started.

    Raises:
        UserError: there are too few; or ``device`` names one that does not exist, or one GPU for several processes.
    """
    if not device.startswith("cuda"):
        return
    here, (_, _, index) = torch.cuda.device_count(), device.partition(":")
    if index and rank.world_size > 1:
        raise UserError(
            f"MODEL.DEVICE is {device} for {rank.world_size} processes; write cuda: each process gets its own GPU"
        )
    if index and int(index) >= here:
        raise UserError(f"MODEL.DEVICE is {device}; this machine has {here} GPUs, counted from 0")
    choose_gpu(rank, here)


def join_group(rank: ProcessRank, device: str, backend: str, timeout: timedelta) -> None:
    """Creates the process group, and detectron2's group of the processes on this machine.

    On the device ``"cuda"``, each process first selects a GPU of its own. ``timeout`` applies to this call and to all
    later collective operations.

    Raises:
        UserError: the processes could not connect to each other.
    """
    if device == "cuda":
        torch.cuda.set_device(choose_gpu(rank, torch.cuda.device_count()))
    try:
        distributed.init_process_group(
            backend, init_method=rank.url, world_size=rank.world_size, rank=rank.rank, timeout=timeout
        )
    except (distributed.DistError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"rank {rank.rank} of {rank.world_size} did not meet the others at {rank.url}: {reason}; --dist-url "
            "must name a free port of the first machine that all can reach, and all must have been started"
        ) from error
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(rank.local_world_size)
    else:  # 0.6: its launcher does this itself
        for machine in range(rank.num_machines):
            first = machine * rank.local_world_size
            group = distributed.new_group(range(first, first + rank.local_world_size))
            if first <= rank.rank < first + rank.local_world_size:
                comm._LOCAL_PROCESS_GROUP = group
    # Wait here for slow ranks rather than in the first operation of the training.
    comm.synchronize()


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
    """Runs ``main(args)`` in every process of a run, in a process group if there are several.

    A process that torchrun or srun has started joins the others and starts none. Otherwise, if ``processes`` is more
    than one, that many are spawned on this machine.

    Args:
        main: a module-level function, because spawned processes import it by name.
        args: its argument.
        device: ``MODEL.DEVICE``; with ``"cuda"``, each process gets a GPU of its own. If the machine has no GPU or
            ``processes`` is 0, one process runs on the CPU.
        processes: number of processes on this machine.
        num_machines: number of machines in the run.
        machine_rank: the rank of this machine, from 0.
        dist_url: ``tcp://HOST:PORT`` of the first machine; ``"auto"`` finds a free port if there is only one machine.
        backend: ``"nccl"`` or ``"gloo"``; None chooses by the device.
        timeout: of collective operations.

    Returns:
        The result of ``main``; None if processes were spawned.

    Raises:
        UserError: processes, machines, device and backend do not fit together.
        ProcessRaisedException, ProcessExitedException, SystemExit: a spawned process failed, see ``supervise``.
    """
    if processes < 0:
        raise UserError(f"the number of GPUs is {processes}; allowed: 0 (one process on the CPU) or more")
    usable = usable_device(device, processes)
    backend = choose_backend(usable, backend)
    rank = find_rank(os.environ)
    if rank is None:
        count = max(processes, 1) if usable == device else 1
        rank = first_local_rank(count, num_machines, machine_rank, dist_url)
    else:
        _warn_of_other_numbers(rank, processes, num_machines)
    if usable != device and processes > 0 and rank.num_machines > 1:
        raise UserError(f"MODEL.DEVICE is {device} and this machine has no GPU; set it to cpu, on all machines")
    check_gpus(usable, rank)
    if rank.world_size == 1:
        if usable.startswith("cuda:"):
            torch.cuda.set_device(usable)
        with leave_at_once():
            return main(args)
    job = (main, args, usable, backend, timeout)
    if rank.launcher != "spawn" or rank.local_world_size == 1:
        return _run(rank, *job)
    with leave_at_once():
        context = multiprocessing.start_processes(_spawned, (rank, *job), rank.local_world_size, join=False)
        return supervise(context, rank.rank, timeout.total_seconds())


def usable_device(device: str, processes: int) -> str:
    """``MODEL.DEVICE``, or the CPU instead of CUDA where no GPU was asked for (0 processes) or there is none."""
    if device.startswith("cuda") and (processes == 0 or not torch.cuda.is_available()):
        return "cpu"
    return device


def _warn_of_other_numbers(rank: ProcessRank, processes: int, num_machines: int) -> None:
    """Warns that the launcher overrides the command line, where 1 is the default and 0 means CPU."""
    same = processes in (0, 1, rank.local_world_size) and num_machines in (1, rank.num_machines)
    if not same and rank.local_rank == 0:
        _logger.warning(
            "%s started %d processes per machine on %d machines; the %d and %d of the command line are ignored",
            *(rank.launcher, rank.local_world_size, rank.num_machines, processes, num_machines),
        )


def _spawned(index: int, first: ProcessRank, *job: Any) -> None:
    """The entry point of the ``index``-th spawned process of a machine."""
    end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // first.local_world_size))
    _run(dataclasses.replace(first, rank=first.rank + index, local_rank=index), *job)


def _run(
    rank: ProcessRank, main: Callable[[Any], Any], args: Any, device: str, backend: str, timeout: timedelta
) -> Any:
    with leave_at_once():
        join_group(rank, device, backend, timeout)
        result = main(args)
    # Not after an exception: other ranks may be in the middle of an operation, and this would wait for them.
    distributed.destroy_process_group()
    return result
