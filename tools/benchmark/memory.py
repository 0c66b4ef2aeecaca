"""What processes hold, as Linux counts it."""

import os
from collections.abc import Iterable
from pathlib import Path

from imgcls.errors import UserError


def memory(pid: int) -> dict[str, float]:
    """Memory of a process in MB (10^6 bytes): ``"pss"``, where shared pages are divided, and ``"uss"``, only its own.

    Raises:
        UserError: not on Linux.
    """
    path = Path(f"/proc/{pid}/smaps_rollup")
    try:
        lines = path.read_text(encoding="ascii").splitlines()[1:]
    except OSError as error:
        raise UserError(f"memory is read from {path}, which only Linux has ({error.strerror})") from error
    kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {"pss": kb["Pss"] * 1024e-6, "uss": (kb["Private_Clean"] + kb["Private_Dirty"]) * 1024e-6}


def peak_memory(pid: int) -> float:
    """The most that a process ever held (RSS), in MB, since its start or ``reset_peak``."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024e-6 for line in lines if line.startswith("VmHWM:"))


def reset_peak() -> None:
    """Lets ``peak_memory`` of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def open_files(pids: Iterable[int]) -> int:
    """Open files, pipes and sockets of processes together."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
