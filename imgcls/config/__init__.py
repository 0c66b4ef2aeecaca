"""The configuration: our keys on top of detectron2's, safe loading, checks before anything runs."""

from .check import check_cfg
from .defaults import add_imgcls_config, get_cfg
from .load import load_cfg

__all__ = ["add_imgcls_config", "check_cfg", "get_cfg", "load_cfg"]
