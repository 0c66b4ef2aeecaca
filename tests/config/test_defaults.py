import inspect
import re

import detectron2.config

from imgcls.config import add_imgcls_config, get_cfg
from imgcls.config import defaults as module
from imgcls.config.check import check_cfg


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_keys_of_detectron2_are_unchanged():
    theirs, ours = dict(flat(detectron2.config.get_cfg())), dict(flat(get_cfg()))
    assert {key: ours[key] for key in theirs} == theirs
    assert {"MODEL.MNET.WIDTH_MULT", "MODEL.CLSNET.NUM_CLASSES"} <= set(ours) - set(theirs)


def test_keys_are_added_in_place_and_not_to_detectron2s_default():
    cfg = detectron2.config.get_cfg()
    cfg.MODEL.OTHER = "kept"
    add_imgcls_config(cfg)
    assert cfg.MODEL.OTHER == "kept" and cfg.MODEL.MNET.WIDTH_MULT == 1.0
    assert "MNET" not in detectron2.config.get_cfg().MODEL


def test_the_defaults_pass_the_check():
    check_cfg(get_cfg())


def test_every_key_has_its_own_comment():
    """The documentation of the keys is generated from these comments."""
    lines = inspect.getsource(module).splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r"    cfg\.[A-Z_.]+ = (?!CfgNode)", line)]
    assert len(keys) >= 35
    for i in keys:
        assert re.match(r"    # .*[.\w]", lines[i - 1]) and lines[i - 1].endswith("."), lines[i]
