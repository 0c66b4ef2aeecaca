"""What a run leaves behind, and where two of them differ by a bit."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import torch

_NUMBERED = re.compile(r"model_\d+\.pth")
# Of the process, not of the training.
_TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


def differences(one: Path, other: Path) -> list[str]:
    """Where the ends of two runs are not the same; nothing where every bit is.

    Compared are all checkpoints that are there, ``last_checkpoint``, every line of ``metrics.json`` and every file of
    ``inference/``.

    Args:
        one: was not interrupted.
        other: may have one old checkpoint more, if a kill kept it from being removed.
    """
    expected, end = read_end(one), read_end(other)
    oldest = min(filter(_NUMBERED.fullmatch, expected))
    for name in filter(_NUMBERED.fullmatch, end.keys() - expected.keys()):
        if name < oldest:
            del end[name]
    return list(_differ(expected, end, ""))


def read_end(folder: Path) -> dict[str, Any]:
    """Everything of a run's folder that is a result, by file name."""
    end: dict[str, Any] = {path.name: _read_checkpoint(path) for path in folder.glob("*.pth")}
    end["last_checkpoint"] = (folder / "last_checkpoint").read_text()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]
    end["metrics.json"] = [line for line in lines if line.keys() != {"iteration"}]
    for path in (folder / "inference").rglob("*"):
        if path.is_file():
            end[str(path.relative_to(folder))] = path.read_text()
    return end


def _read_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["imgcls"]["cfg"]  # names the folder and the number of workers
    del checkpoint["log"]["bytes"]  # of metrics.json with its times
    return checkpoint


def _differ(one: Any, other: Any, where: str) -> Any:
    if type(one) is not type(other):
        yield f"{where}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, dict):
        for key in sorted(one.keys() ^ other.keys(), key=str):
            yield f"{where}.{key}: only in {'the first' if key in one else 'the second'}"
        for key in one.keys() & other.keys():
            yield from _differ(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{where}: length {len(one)} and {len(other)}"
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from _differ(*pair, f"{where}[{index}]")
    elif _bits(one) != _bits(other):
        shown = "" if torch.is_tensor(one) else f": {str(one)[:80]} and {str(other)[:80]}"
        yield f"{where}{shown}"


def _bits(value: Any) -> Any:
    """NaN is the same as itself, and 0.0 is not -0.0."""
    if torch.is_tensor(value):
        return value.dtype, value.shape, value.reshape(-1).view(torch.uint8).numpy().tobytes()
    return struct.pack("d", value) if isinstance(value, float) else value
