"""The machine that a figure was measured on, and the memory and open files of its processes."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import torch

from imgcls.errors import UserError

_PACKAGES = ("torch", "torchvision", "detectron2", "timm", "numpy", "Pillow")


def describe_machine() -> dict[str, str | int | float]:
    """Returns processor, usable cores, load average over the last minute, GPU, and versions, by name."""
    machine: dict[str, str | int | float] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load before": round(os.getloadavg()[0], 1),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        "OpenCV": cv2.__version__,
    }
    for package in _PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            machine[package] = "not installed"
    return machine


def memory(pid: int) -> dict[str, float]:
    """Returns a process's memory in MB (10^6 bytes): ``"pss"`` divides shared pages, ``"uss"`` leaves them out.

    Raises:
        UserError: the system is not Linux.
    """
    path = Path(f"/proc/{pid}/smaps_rollup")
    try:
        lines = path.read_text(encoding="ascii").splitlines()[1:]
    except OSError as error:
        raise UserError(f"memory is read from {path}, which only Linux has ({error.strerror})") from error
    kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return {"pss": kb["Pss"] * 1024e-6, "uss": (kb["Private_Clean"] + kb["Private_Dirty"]) * 1024e-6}


def peak_memory(pid: int) -> float:
    """Returns the peak resident memory of a process in MB, since its start or the last ``reset_peak``."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024e-6 for line in lines if line.startswith("VmHWM:"))


def reset_peak() -> None:
    """Makes ``peak_memory`` of this process count from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def count_open_files(pids: Iterable[int]) -> int:
    """Returns the number of open files, pipes and sockets of several processes together."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict([part.strip() for part in line.split(":", 1)] for line in reversed(lines) if ":" in line)
    name = fields.get("model name") or platform.processor() or platform.machine()
    # Virtual machines often show a bare "AMD EPYC": the numbers tell its generations apart.
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name
