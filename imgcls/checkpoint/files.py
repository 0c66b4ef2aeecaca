"""Checkpoint files: reading never runs code from the file unless asked to, and writing is atomic."""

import logging
import os
import pickle
import re
import zipfile
from typing import Any

import torch

from imgcls.disk import replace_file
from imgcls.errors import UserError, UserFileNotFoundError

_FLAG = "; if you trust its author, add --allow-pickle"
# The averaged weights in files of the training scripts of timm and torchvision.
_AVERAGES = ("state_dict_ema", "model_ema")
# Where other projects keep the weights, and what detectron2's checkpointer must know to match their names.
_LAYOUTS: dict[str, dict[str, Any]] = {
    "model": {},
    "state_dict": {},
    "model_state": {"__author__": "pycls", "matching_heuristics": True},
    "blobs": {"__author__": "Caffe2", "matching_heuristics": True},
}
_TENSORFLOW = (".h5", ".keras", ".ckpt.index", ".ckpt.meta", ".pb", ".tflite")
_logger = logging.getLogger(__name__)


def read_checkpoint(path: str, allow_pickle: bool = False, mapped: bool = False, raw: bool = False) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain Python types onto the CPU.

    Args:
        path: a local file in the layout of imgcls, detectron2, timm, torchvision, pycls or Caffe2, or a bare dict of
            tensors.
        allow_pickle: also read a file that holds other objects, which can run code while they are read.
        mapped: memory-map the file: a tensor is read when it is used, and this call takes milliseconds.
        raw: take the raw weights of a timm or torchvision file that also has their moving average. By default the
            average is taken, with a warning. The ``"ema"`` entry of imgcls is not affected.

    Returns:
        The entries of the file, with the tensors under ``"model"``.

    Raises:
        UserFileNotFoundError: the file does not exist.
        UserError: the file is truncated, not a checkpoint, or a pickle while ``allow_pickle`` is off.
    """
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such checkpoint")
    check_pickle(path, allow_pickle)
    try:
        checkpoint = _read(path, allow_pickle, mapped)
    # torch raises RuntimeError, EOFError, UnpicklingError, OSError, ... for a damaged file, with no common base.
    except Exception as error:
        reason = " ".join(str(error).split())
        if re.search("unsupported (global|class)", reason, re.IGNORECASE):  # GLOBAL for modules that torch blocks
            raise UserError(
                f"{path} holds Python objects beside tensors, which can run code when they are read{_FLAG}"
            ) from error
        raise UserError(f"{path} is truncated or not a checkpoint of tensors ({reason[:120]})") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    checkpoint = _find_model(path, checkpoint, raw)
    model = checkpoint["model"]
    if allow_pickle and isinstance(model, dict):  # detectron2's model zoo has numpy arrays
        checkpoint["model"] = model = {key: torch.as_tensor(value) for key, value in model.items()}
    if not isinstance(model, dict) or not all(torch.is_tensor(value) for value in model.values()):
        raise UserError(f"{path}: its model is not a dict of tensors, so it is not a checkpoint")
    return checkpoint


def check_pickle(path: str, allow_pickle: bool) -> None:
    """Raises a ``UserError`` if ``path`` ends in ``.pkl`` and ``allow_pickle`` is off."""
    if path.endswith(".pkl") and not allow_pickle:
        raise UserError(f"{path} is a pickle, which can run code when it is read; give a .pth file{_FLAG}")


def write_checkpoint(path: str, checkpoint: dict[str, Any], advice: str = "name another file") -> None:
    """Writes tensors and plain Python types; if this fails, an existing ``path`` is unchanged.

    Raises:
        UserError: the file cannot be written; ``advice`` ends the message.
        TypeError: ``read_checkpoint`` would refuse the checkpoint.
    """
    with replace_file(path, advice) as file:
        torch.save(checkpoint, file)
        file.flush()
        try:
            read_checkpoint(file.name, mapped=True)
        except UserError as error:
            raise TypeError(f"{path} could not be read again: {error}") from error


def read_weights(path: str, allow_pickle: bool = False, raw: bool = False) -> dict[str, Any]:
    """Reads a ``.safetensors`` file, or any file that ``read_checkpoint`` reads, with the same arguments and errors.

    Raises:
        UserError: also if safetensors is needed and not installed, or if the file is TensorFlow's.
    """
    if path.endswith(_TENSORFLOW):
        raise UserError(
            f"{path} is a file of Keras or TensorFlow, whose MobileNets pad strided convolutions at the bottom and the "
            "right only: their weights would compute something else here; give a file of PyTorch weights"
        )
    if not path.endswith(".safetensors"):
        return read_checkpoint(path, allow_pickle, raw=raw)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f'{path}: reading it needs the package safetensors: pip install -e ".[timm]"') from error
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such file")
    try:
        return {"model": load_file(path)}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({' '.join(str(error).split())})") from error


def _read(path: str, allow_pickle: bool, mapped: bool) -> Any:
    if allow_pickle and path.endswith(".pkl"):
        with open(path, "rb") as file:
            return pickle.load(file, encoding="latin1")
    mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote another format
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        if not allow_pickle:
            raise
        return torch.load(path, map_location="cpu", weights_only=False)


def _find_model(path: str, checkpoint: dict[str, Any], raw: bool) -> dict[str, Any]:
    """Returns the entries of a file in any layout, with the weights under ``"model"``."""
    layout = next((name for name in _LAYOUTS if name in checkpoint), "")
    average = next((name for name in _AVERAGES if isinstance(checkpoint.get(name), dict)), "")
    if average and not raw:
        other = f" and not {layout!r}; to use that, convert the file with --raw" if layout else ""
        _logger.warning("%s: using the averaged weights, %r%s", path, average, other)
        # torchvision's is the state of an AveragedModel, which has a counter and the model under "module".
        averaged = {key: value for key, value in checkpoint[average].items() if key != "n_averaged"}
        return {**checkpoint, "model": {key.removeprefix("module."): value for key, value in averaged.items()}}
    if layout == "model":
        return checkpoint
    if layout:
        model, entries = checkpoint[layout], {**checkpoint, **_LAYOUTS[layout]}
    else:  # a bare dict of tensors; as a pickle, ImageNet weights of Caffe2
        model, entries = checkpoint, dict(_LAYOUTS["blobs"]) if path.endswith(".pkl") else {}
    if entries.get("__author__") == "Caffe2":
        model = {key: value for key, value in model.items() if not key.endswith("_momentum")}
    return {**entries, "model": model}
