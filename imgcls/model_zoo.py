"""The configs of this package, by name, as in detectron2's model zoo.

They are the files of ``configs/`` in a checkout; a wheel contains a copy of them.
"""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from imgcls.config import load_cfg
from imgcls.errors import UserFileNotFoundError

_PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """The folder with the configs: part of the installed package, or ``configs/`` beside it in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """Names of all configs, such as ``"ImageNet/mnetv1_100.yaml"``, sorted."""
    folder = config_folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))


def get_config_file(name: str) -> str:
    """Path of the config with a name such as ``"ImageNet/mnetv1_100.yaml"``.

    Raises:
        UserFileNotFoundError: there is no config of that name.
    """
    if name not in config_names():
        raise UserFileNotFoundError(f"the model zoo has no config {name}{_suggest(name)}")
    return str(config_folder() / name)


def get_config(name: str, opts: Sequence[str] = ()) -> CfgNode:
    """A config of the model zoo, merged with the defaults; ``opts`` are keys and values that replace those of the file.

    Raises:
        UserError: there is no such config, or ``opts`` has an unknown key or a value of the wrong type.
    """
    return load_cfg(get_config_file(name), opts)


def find_config_file(name_or_path: str, flag: str = "--config-file") -> str:
    """The path itself if it is a file, else the config of the model zoo with this name.

    Args:
        name_or_path: an empty string is returned unchanged.
        flag: names the source of the value in the error.

    Raises:
        UserFileNotFoundError: neither a file nor a name of the model zoo.
    """
    if not name_or_path or os.path.exists(name_or_path):
        return name_or_path
    if name_or_path in config_names():
        return get_config_file(name_or_path)
    raise UserFileNotFoundError(
        f"{flag} {name_or_path}: no such file, and no config of the model zoo{_suggest(name_or_path)}"
    )


def _suggest(name: str) -> str:
    near = difflib.get_close_matches(name, config_names(), n=1)
    return f"; did you mean {near[0]}?" if near else "; its configs are listed by `imgcls complexity`"
