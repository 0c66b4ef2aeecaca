import pytest

from imgcls.config import check_cfg, get_cfg

WRONG = [
    ("MODEL.MNET.WIDTH_MULT", 0.0), ("MODEL.MNET.WIDTH_MULT", -1.0), ("MODEL.MNET.WIDTH_MULT", float("nan")),
    ("MODEL.MNET.DEPTH_MULT", 0.0), ("MODEL.MNET.BLOCKS", [1, 0, 1, 1, 1]), ("MODEL.MNET.STEM_STRIDE", 3),
    ("MODEL.MNET.ACTIVATION", "swish"), ("MODEL.MNET.NORM", "BatchNorm"), ("MODEL.MNET.BN_EPS", 0.0),
    ("MODEL.MNET.BN_MOMENTUM", 1.5), ("MODEL.BACKBONE.FREEZE_AT", -1), ("MODEL.CLSNET.NUM_CLASSES", 0),
    ("MODEL.CLSNET.NUM_CLASSES", -2), ("MODEL.CLSNET.INPUT_SIZE", 0), ("MODEL.CLSNET.HEAD", "hinge"),
    ("MODEL.CLSNET.HEAD_CONV_DIM", -1), ("MODEL.CLSNET.DROPOUT", 2.0), ("MODEL.CLSNET.LABEL_SMOOTHING", -0.1),
    ("MODEL.CLSNET.POS_WEIGHT", "most"), ("MODEL.CLSNET.POS_WEIGHT", [1.0, -1.0]), ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0]),
    ("INPUT.RANDOM_FLIP", "both"), ("INPUT.CROP_PCT", 1.5),
    ("INPUT.CROP_SCALE", [0.5]), ("INPUT.CROP_SCALE", [0.9, 0.1]),
    ("INPUT.CROP_RATIO", [0.0, 1.0]), ("INPUT.AUGMENTATION", "more"), ("INPUT.RANDOM_ERASING", -1.0),
    ("MODEL.META_ARCHITECTURE", "Cls"), ("MODEL.BACKBONE.NAME", "resnet"),
    ("DATALOADER.BAD_IMAGES", "ignore"), ("SOLVER.IMS_PER_BATCH", 0), ("TEST.TOPK", []), ("TEST.TOPK", [0]),
    ("TEST.THRESHOLD", 1.1),
]  # fmt: skip


def with_value(key, value):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ClsNet"
    node = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    return cfg


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_refuses_and_names_key_value_and_what_is_allowed(key, value):
    with pytest.raises(ValueError) as raised:
        check_cfg(with_value(key, value))
    message = str(raised.value)
    assert message.startswith(f"{key} is {value!r}; ") and "\n" not in message
    assert "allowed: " in message or "registered are " in message


def test_pos_weight_must_fit_head_and_class_count():
    cfg = with_value("MODEL.CLSNET.POS_WEIGHT", [1.0, 2.0])
    with pytest.raises(ValueError, match=r"2 values for MODEL\.CLSNET\.NUM_CLASSES 1000"):
        check_cfg(cfg)
    cfg.MODEL.CLSNET.NUM_CLASSES = 2
    with pytest.raises(ValueError, match=r"is for MODEL\.CLSNET\.HEAD 'sigmoid'"):
        check_cfg(cfg)
    cfg.MODEL.CLSNET.HEAD = "sigmoid"
    check_cfg(cfg)


def test_label_smoothing_needs_softmax():
    cfg = with_value("MODEL.CLSNET.LABEL_SMOOTHING", 0.1)
    cfg.MODEL.CLSNET.HEAD = "sigmoid"
    with pytest.raises(ValueError, match="LABEL_SMOOTHING is for"):
        check_cfg(cfg)


def test_format_is_checked_for_a_classifier_only():
    cfg = with_value("INPUT.FORMAT", "YUV-BT.601")
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is 'YUV-BT\.601'; allowed: one of \['BGR', 'RGB'\]"):
        check_cfg(cfg)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    check_cfg(cfg)


def test_warm_up_must_end_before_the_run():
    """With 6,255 iterations of warm-up in a run of 20, detectron2's cosine schedule gives a learning rate of 0."""
    cfg = with_value("SOLVER.MAX_ITER", 20)
    cfg.SOLVER.WARMUP_ITERS = 20
    with pytest.raises(ValueError, match=r"SOLVER\.WARMUP_ITERS is 20; allowed: 0 to below SOLVER\.MAX_ITER 20"):
        check_cfg(cfg)
    cfg.SOLVER.WARMUP_ITERS = 19
    check_cfg(cfg)


def test_some_top_k_must_be_within_the_class_count():
    cfg = with_value("TEST.TOPK", [5])
    cfg.MODEL.CLSNET.NUM_CLASSES = 3
    with pytest.raises(ValueError, match=r"TEST\.TOPK is \[5\]; allowed: at least one of 1 to 3"):
        check_cfg(cfg)
    cfg.TEST.TOPK = [2, 5]
    check_cfg(cfg)


@pytest.mark.parametrize("key", ["PIXEL_MEAN", "PIXEL_STD"])
def test_means_are_three(key):
    with pytest.raises(ValueError, match=rf"MODEL\.{key} is \[1\.0\]; allowed: three"):
        check_cfg(with_value(f"MODEL.{key}", [1.0]))
