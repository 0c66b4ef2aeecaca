import detectron2.config

from imgcls.config import add_imgcls_config, get_cfg
from imgcls.config.check import check_cfg


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_only_adds_keys():
    theirs, ours = dict(flat(detectron2.config.get_cfg())), dict(flat(get_cfg()))
    assert {key: ours[key] for key in theirs} == theirs
    assert {"MODEL.MNET.WIDTH_MULT", "MODEL.CLSNET.NUM_CLASSES"} <= set(ours) - set(theirs)


def test_composes_with_other_adders_and_leaves_detectron2s_default():
    cfg = detectron2.config.get_cfg()
    cfg.MODEL.OTHER = "kept"
    add_imgcls_config(cfg)
    assert cfg.MODEL.OTHER == "kept" and cfg.MODEL.MNET.WIDTH_MULT == 1.0
    assert "MNET" not in detectron2.config.get_cfg().MODEL


def test_the_defaults_pass_the_check():
    check_cfg(get_cfg())
