"""Loads a config from a YAML file and the command line, with errors that name the key."""

import ast
import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce
from operator import getitem
from typing import Any

import yaml
from detectron2.config import CfgNode

from imgcls.config.defaults import get_cfg
from imgcls.errors import UserError, UserFileNotFoundError

LAST_STAGE = "mob5"
_logger = logging.getLogger(__name__)


def load_cfg(config_file: str, opts: Sequence[Any] = ()) -> CfgNode:
    """Merges the defaults with a YAML file (and its ``_BASE_``) and with ``KEY VALUE`` pairs.

    A file with Python tags is refused; with detectron2's default, such tags would run code. A plain string is accepted
    where a config has a list of names: ``DATASETS.TRAIN folder:images`` means ``("folder:images",)``.

    Args:
        config_file: path of the YAML file; empty for the defaults alone.
        opts: alternating keys and values, as on detectron2's command line; values may also be Python objects.

    Raises:
        ValueError: a key is unknown, a value has another type, the YAML is invalid or unsafe, or ``opts`` is odd.
        FileNotFoundError: the file or its ``_BASE_`` does not exist.
    """
    cfg = get_cfg()
    if config_file:
        _merge_file(cfg, config_file)
    _merge_opts(cfg, opts)
    return cfg


def _merge_file(cfg: CfgNode, path: str) -> None:
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"--config-file {path}: no such file")
    try:
        loaded = CfgNode(CfgNode.load_yaml_with_base(path, allow_unsafe=False))
        if loaded.get("VERSION", cfg.VERSION) == cfg.VERSION:
            _wrap_names(loaded, cfg)
            cfg.merge_from_other_cfg(loaded)
        else:
            cfg.merge_from_file(path, allow_unsafe=False)  # converts keys of detectron2's first config version
    except FileNotFoundError as error:
        raise UserFileNotFoundError(f"{path}: its _BASE_ {error.filename} does not exist") from error
    except yaml.constructor.ConstructorError as error:
        raise UserError(f"{path}: {error.problem}; YAML tags are not allowed, write plain values") from error
    except OSError as error:
        raise UserError(f"--config-file {path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: {_explain(cfg, error)}") from error


def _merge_opts(cfg: CfgNode, opts: Sequence[Any]) -> None:
    flag = next((opt for opt in opts if isinstance(opt, str) and opt.startswith("--")), None)
    if flag:
        raise UserError(f"{flag} comes after {opts[0]}; write flags before the first KEY VALUE pair")
    if len(opts) % 2:
        keys = set(_keys(cfg))
        lonely = next((opt for opt in opts[::2] if opt not in keys), opts[-1])
        raise UserError(f"overrides come in pairs, KEY VALUE, but there are {len(opts)}; look at {lonely}")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        if key not in _keys(cfg):
            raise UserError(_unknown_key(cfg, key))
        node, _, name = key.rpartition(".")
        try:
            override = CfgNode({name: value})
            _wrap_names(override, reduce(getitem, filter(None, node.split(".")), cfg))
            cfg.merge_from_list([key, override[name]])
        except (KeyError, ValueError, AssertionError) as error:
            raise UserError(f"{key} {value}: {_explain(cfg, error)}") from error


def _wrap_names(values: CfgNode, defaults: CfgNode) -> None:
    """Puts a plain string into a list, in place, where the default is a list or tuple of names."""
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, CfgNode) and isinstance(default, CfgNode):
            _wrap_names(value, default)
        elif isinstance(value, str) and isinstance(default, (list, tuple)) and all(isinstance(d, str) for d in default):
            with suppress(ValueError, SyntaxError):  # otherwise it is a list, written as Python text
                value = ast.literal_eval(value)
            if isinstance(value, str):
                values[key] = [value] if value else []


def _explain(cfg: CfgNode, error: Exception) -> str:
    if isinstance(error, (AttributeError, TypeError)):
        return "it does not consist of keys and values; write for example SEED: 1"
    message = str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, KeyError) and "Non-existent config key: " in message:
        return _unknown_key(cfg, message.rsplit(": ", 1)[1])
    return " ".join(message.split())


def _unknown_key(cfg: CfgNode, key: str) -> str:
    near = difflib.get_close_matches(key, _keys(cfg), n=1)
    return f"unknown config key {key}" + (
        f"; did you mean {near[0]}?" if near else "; the documentation lists all keys"
    )


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{name}.")


def feature_names(names: Sequence[str], key: str) -> list[str]:
    """Replaces the feature ``"linear"`` by the last stage, without duplicates.

    In the 2020 project, ``"linear"`` was a classifier inside the backbone. Here the classifier is in the head, which
    reads the last stage.

    Args:
        names: the value of a config key.
        key: the name of that key, for the log.
    """
    if "linear" not in names:
        return list(names)
    _logger.info('%s: "linear" is read as "%s", because the classifier is in the head', key, LAST_STAGE)
    replaced = [LAST_STAGE if name == "linear" else name for name in names]
    return list(dict.fromkeys(replaced))
