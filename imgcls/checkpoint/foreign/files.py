"""Weight files of other projects: what ``read_checkpoint`` reads, and safetensors."""

import os
from typing import Any

from imgcls.errors import UserError, UserFileNotFoundError

from ..files import read_checkpoint


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
