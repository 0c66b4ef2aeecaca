"""What a figure was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import torch

_PACKAGES = ("torch", "torchvision", "detectron2", "timm", "numpy", "Pillow")


def describe_machine() -> dict[str, str | int | float]:
    """Processor, cores that this process may use, load of the minute before, GPU, and versions."""
    told: dict[str, str | int | float] = {
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
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = "not installed"
    return told


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
