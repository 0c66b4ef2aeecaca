"""Starting the processes of a run: one or many, on GPUs or a CPU, by us, torchrun or Slurm."""

import dataclasses
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, multiprocessing

from imgcls.errors import UserError

from .cluster import find_place
from .place import Place, own_place
from .process_group import check_gpus, choose_backend, join_group
from .watch import end_with_parent, watch

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
        ProcessRaisedException, ProcessExitedException, SystemExit: a spawned process failed, see ``watch``.
    """
    if processes < 0:
        raise UserError(f"--num-gpus is {processes}; allowed: 0 (one process on the CPU) or more")
    usable = usable_device(device, processes)
    backend = choose_backend(usable, backend)
    place = find_place(os.environ)
    if place is None:
        count = max(processes, 1) if usable == device else 1
        place = own_place(count, num_machines, machine_rank, dist_url)
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
    return watch(context, place.rank, timeout.total_seconds())


def usable_device(device: str, processes: int) -> str:
    """``MODEL.DEVICE``, or the CPU instead of CUDA where no GPU was asked for (0 processes) or there is none."""
    if device.startswith("cuda") and (processes == 0 or not torch.cuda.is_available()):
        return "cpu"
    return device


def _warn_of_other_numbers(place: Place, processes: int, num_machines: int) -> None:
    """1 is what a command line says that says nothing, and 0 chooses the CPU."""
    same = processes in (0, 1, place.local_world_size) and num_machines in (1, place.num_machines)
    if not same and place.local_rank == 0:
        _logger.warning(
            "%s decides: %d processes a machine, %d machines; the command line's %d and %d are not used",
            *(place.launcher, place.local_world_size, place.num_machines, processes, num_machines),
        )


def _spawned(index: int, first: Place, *job: Any) -> None:
    """What a spawned process does, the ``index``-th of its machine."""
    end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // first.local_world_size))
    _run(dataclasses.replace(first, rank=first.rank + index, local_rank=index), *job)


def _run(place: Place, main: Callable[[Any], Any], args: Any, device: str, backend: str, timeout: timedelta) -> Any:
    join_group(place, device, backend, timeout)
    result = main(args)
    # Not after an exception: others may be in the middle of an operation, and this would wait for them.
    distributed.destroy_process_group()
    return result
