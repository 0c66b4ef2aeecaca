"""The config: our keys on top of detectron2's, safe loading, and checks before anything runs."""

from imgcls.config.check import check_best_metric, check_cfg
from imgcls.config.defaults import add_imgcls_config, get_cfg
from imgcls.config.load import load_cfg

__all__ = ["add_imgcls_config", "check_best_metric", "check_cfg", "get_cfg", "load_cfg"]
