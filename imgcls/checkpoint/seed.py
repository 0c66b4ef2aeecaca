"""The seed of a run that did not choose one."""

import yaml

from .files import read_checkpoint
from .run_folder import find_newest


def saved_seed(folder: str) -> int:
    """``SEED`` of the run whose checkpoints are in a folder; -1 where there are none, or none that tells.

    Raises:
        As ``find_newest``.
    """
    path = find_newest(folder)
    info = read_checkpoint(path, mapped=True).get("imgcls") if path else None
    return yaml.safe_load(info["cfg"])["SEED"] if info else -1
