"""Checkpoint files: read without running code that is in them, written whole or not at all."""

import os
import pickle
import zipfile
from typing import Any, BinaryIO

import torch

from imgcls.disk import replace_file
from imgcls.errors import UserError, UserFileNotFoundError

_FLAG = "; the tools read it with --allow-pickle, if you trust its author"


def read_checkpoint(path: str, allow_pickle: bool = False, mapped: bool = False) -> dict[str, Any]:
    """Reads a checkpoint of tensors and plain Python types onto the CPU.

    Args:
        path: a local file. A bare dict of tensors, and one that has them under ``"state_dict"``, is read, too.
        allow_pickle: also read a file that holds other objects. Reading such a file can run code that is in it.
        mapped: leave the tensors in the file until they are used. Reading takes milliseconds then.

    Returns:
        A dict with the tensors under ``"model"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not a checkpoint, or a pickle and ``allow_pickle`` is off.
    """
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such checkpoint")
    if path.endswith(".pkl") and not allow_pickle:
        raise UserError(f"{path} is a pickle, which can run code when it is read; give a .pth file{_FLAG}")
    try:
        checkpoint = _read(path, allow_pickle, mapped)
    # torch raises RuntimeError, EOFError, UnpicklingError, OSError, ... for a damaged file, in no common class.
    except Exception as error:
        reason = " ".join(str(error).split())
        if "nsupported global" in reason or "nsupported class" in reason:
            raise UserError(
                f"{path} holds Python objects beside tensors, which can run code when they are read{_FLAG}"
            ) from error
        raise UserError(f"{path} is truncated or not a checkpoint of tensors ({reason[:120]})") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    if "model" not in checkpoint:
        entries = checkpoint if "state_dict" in checkpoint else {}
        checkpoint = {**entries, "model": checkpoint.get("state_dict", checkpoint)}
    model = checkpoint["model"]
    if allow_pickle and isinstance(model, dict):  # detectron2's model zoo has arrays
        checkpoint["model"] = model = {key: torch.as_tensor(value) for key, value in model.items()}
    if not isinstance(model, dict) or not all(torch.is_tensor(value) for value in model.values()):
        raise UserError(f"{path}: what it has for a model is not a dict of tensors; it is not a checkpoint")
    return checkpoint


def write_checkpoint(path: str, checkpoint: dict[str, Any], advice: str = "name another file") -> None:
    """Writes under a temporary name in the same folder, then renames: ``path`` is whole or as it was.

    Args:
        path: the file.
        checkpoint: tensors and plain Python types.
        advice: what the user can do when the file cannot be written.

    Raises:
        ValueError: the file cannot be written.
        TypeError: ``read_checkpoint`` would refuse the checkpoint for what is in it; ``path`` is as it was.
    """

    def write(file: BinaryIO) -> None:
        torch.save(checkpoint, file)
        file.flush()
        try:
            read_checkpoint(file.name, mapped=True)
        except UserError as error:
            raise TypeError(f"{path} could not be read again: {error}") from error

    replace_file(path, write, advice)


def _read(path: str, allow_pickle: bool, mapped: bool) -> Any:
    if path.endswith(".pkl"):
        with open(path, "rb") as file:
            return pickle.load(file, encoding="latin1")
    mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote another format
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        if not allow_pickle:
            raise
        return torch.load(path, map_location="cpu", weights_only=False)


def read_weights(path: str, allow_pickle: bool = False) -> dict[str, Any]:
    """Reads a ``.safetensors`` file, or any that ``read_checkpoint`` reads.

    Args:
        path: a local file.
        allow_pickle: see ``read_checkpoint``.

    Returns:
        A dict with the tensors under ``"model"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not a file of tensors, or safetensors is not installed.
    """
    if not path.endswith(".safetensors"):
        return read_checkpoint(path, allow_pickle)
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
