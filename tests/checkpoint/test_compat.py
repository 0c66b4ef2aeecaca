"""Which config keys must be equal for a checkpoint to be used, and how a difference is reported."""

import pytest
import torch
from torch import nn

from imgcls.checkpoint.compat import (
    _EFFECTS,
    ABSENT,
    Effect,
    Use,
    advise,
    build_contract,
    build_expected,
    changed_keys,
    check_contract,
    check_settings,
    effect_of,
    read_model_settings,
    read_settings,
)
from imgcls.config import get_cfg

MNET, TIMM, RESNET, FPN, OTHER = (
    ["MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.BACKBONE.NAME", f"build_{name}_backbone"]
    for name in ("mnetv1", "timm", "resnet", "mnetv1_fpn", "p67_effnet")
)
RETINANET = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_mnetv1_fpn_backbone"]
EVERY_USE, WHOLE = set(Use), {Use.CLASSIFIER, Use.RESUME}
NETWORK = WHOLE | {Use.DETECTOR, Use.OTHER_CLASSES}


def make_cfg(*changes):
    cfg = get_cfg()
    cfg.merge_from_list(list(changes))
    return cfg


def settings(*changes):
    return build_expected(make_cfg(*changes))


@pytest.mark.parametrize(
    ("network", "key", "there", "here", "uses"),
    [
        (MNET, "INPUT.FORMAT", "BGR", "RGB", EVERY_USE),
        (MNET, "MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675], [1.0, 2.0, 3.0], EVERY_USE),
        (MNET, "MODEL.PIXEL_STD", [1.0, 1.0, 1.0], [2.0, 2.0, 2.0], EVERY_USE),
        (MNET, "MODEL.MNET.ACTIVATION", "relu6", "leaky_relu", EVERY_USE),
        (MNET, "MODEL.MNET.BN_EPS", 1e-5, 0.1, EVERY_USE),
        (MNET, "MODEL.MNET.STEM_STRIDE", 2, 1, EVERY_USE),
        (MNET, "MODEL.MNET.NORM", "BN", "GN", EVERY_USE),
        (MNET, "MODEL.MNET.NORM", "BN", "FrozenBN", {Use.RESUME}),
        (MNET, "MODEL.MNET.NORM", "naiveSyncBN", "SyncBN", {Use.RESUME}),
        (TIMM, "MODEL.TIMM.NAME", "efficientnet_b0", "tf_efficientnet_b0", EVERY_USE),
        (TIMM, "MODEL.TIMM.NAME", "resnet18.a1_in1k", "resnet18", set()),
        (TIMM, "MODEL.MNET.ACTIVATION", "relu6", "relu", set()),
        ([*TIMM, "MODEL.CLSNET.HEAD_CONV_DIM", 1280], "MODEL.MNET.ACTIVATION", "relu6", "relu", WHOLE),
        (RESNET, "MODEL.RESNETS.STRIDE_IN_1X1", True, False, EVERY_USE),
        (RESNET, "MODEL.RESNETS.NORM", "FrozenBN", "BN", {Use.RESUME}),
        (RESNET, "MODEL.RESNETS.RES5_DILATION", 1, 2, NETWORK),
        (MNET, "MODEL.RESNETS.STRIDE_IN_1X1", True, False, set()),
        (OTHER, "MODEL.RESNETS.STRIDE_IN_1X1", True, False, EVERY_USE),
        (FPN, "MODEL.FPN.FUSE_TYPE", "sum", "avg", NETWORK),
        (MNET, "MODEL.FPN.FUSE_TYPE", "sum", "avg", set()),
        (MNET, "MODEL.CLSNET.HEAD", "softmax", "sigmoid", WHOLE),
        (MNET, "MODEL.CLSNET.IN_FEATURES", ["mob5"], ["mob4"], WHOLE),
        (MNET, "MODEL.CLSNET.IN_FEATURES", ["mob5"], ["linear"], set()),
        (RETINANET, "MODEL.ANCHOR_GENERATOR.SIZES", [[32]], [[64]], {Use.DETECTOR, Use.RESUME}),
        (MNET, "MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "build_mnetv2_backbone", NETWORK),
        (MNET, "MODEL.BACKBONE.FREEZE_AT", 0, 2, {Use.RESUME}),
        (MNET, "MODEL.META_ARCHITECTURE", "ClsNet", "RetinaNet", {Use.RESUME}),
        (MNET, "MODEL.MNET.WIDTH_MULT", 0.25, 0.26, set()),  # rounded channels may be equal: tensors are compared
        (MNET, "MODEL.CLSNET.INPUT_SIZE", 224, 160, set()),
        (MNET, "SOLVER.BASE_LR", 0.1, 3.0, set()),
    ],
)
def test_the_uses_that_a_key_must_be_equal_for(network, key, there, here, uses):
    saved, current = settings(*network, key, there), settings(*network, key, here)
    refused = {}
    for use in Use:
        check_settings(saved, saved, "a.pth", use)
        try:
            check_settings(saved, current, "a.pth", use)
        except ValueError as error:
            refused[use] = str(error)
    assert refused.keys() == uses
    for use, message in refused.items():
        prefix, verb = ("--resume: ", "resume") if use is Use.RESUME else ("", "use")
        assert message == (
            f"{prefix}a.pth does not fit the config: {key} is {there} in the checkpoint, {here} in the config; "
            f'to {verb} it set {key} "{there}"'
        )


def test_the_lines_of_the_message_mend_it():
    saved = settings(*MNET, "MODEL.MNET.BN_EPS", 1e-3, "MODEL.PIXEL_STD", [57.0, 57.0, 57.0], "INPUT.FORMAT", "RGB")
    with pytest.raises(ValueError, match="to use it set") as raised:
        check_settings(saved, settings(*MNET), "a.pth", Use.CLASSIFIER)
    lines = str(raised.value).partition("to use it set ")[2].rstrip('"').replace(' "', '"').split('"')
    keys, values = [name.strip() for name in lines[::2]], lines[1::2]
    assert keys == ["INPUT.FORMAT", "MODEL.MNET.BN_EPS", "MODEL.PIXEL_STD"]
    mended = settings(*MNET, *(item for pair in zip(keys, values, strict=True) for item in pair))
    check_settings(saved, mended, "a.pth", Use.RESUME)


def test_a_key_that_one_version_lacks_is_not_compared():
    saved = settings(*MNET)
    older = {key: value for key, value in saved.items() if key != "MODEL.MNET.STEM_STRIDE"}
    check_settings(older, settings(*MNET, "MODEL.MNET.STEM_STRIDE", 1), "a.pth", Use.RESUME)
    check_settings(settings(*MNET, "MODEL.MNET.STEM_STRIDE", 1), older, "a.pth", Use.RESUME)


def test_the_table_names_keys_that_exist():
    keys = settings().keys()
    assert effect_of("MODEL.ANCHOR_GENERATOR.SIZES") is Effect.DETECTOR and effect_of("SOLVER.NEW") is Effect.COURSE
    for effect in Effect:
        assert any(effect_of(key) is effect for key in keys), effect
    assert all(any(key == name or key.startswith(f"{name}.") for key in keys) for name in _EFFECTS)


def test_keys_to_set_when_shapes_differ():
    saved = settings(*MNET, "MODEL.MNET.WIDTH_MULT", 0.25, "MODEL.CLSNET.NUM_CLASSES", 10)
    assert advise(saved, settings(*RETINANET), Use.BACKBONE) == 'to use it set MODEL.MNET.WIDTH_MULT "0.25"'
    assert advise(saved, settings(*MNET), Use.CLASSIFIER).endswith(
        'MODEL.CLSNET.NUM_CLASSES "10" MODEL.MNET.WIDTH_MULT "0.25"; '
        "to train on other classes, start a training from it"
    )
    assert advise(saved, saved, Use.BACKBONE).startswith(
        "check MODEL.BACKBONE.NAME (build_mnetv1_backbone in the checkpoint), "
    )


def test_contract_holds_the_preprocessing_in_plain_types():
    contract = build_contract(get_cfg())
    assert contract["format"] == "BGR" and contract["pixel_mean"] == [103.53, 116.28, 123.675]
    assert contract["value_range"] == [0, 255] and contract["input_size"] == 224
    check_contract(contract, build_contract(make_cfg("MODEL.CLSNET.INPUT_SIZE", 160)), "a.pth")
    with pytest.raises(ValueError, match=r'a\.pth does not fit the config: .*to use it set INPUT\.FORMAT "BGR"$'):
        check_contract(contract, {"format": "RGB"}, "a.pth")


def test_contract_of_a_checkpoint_overrides_its_config_text():
    info = {"cfg": "INPUT: {FORMAT: RGB}", "preprocessing": {"format": "BGR", "resize": "bicubic"}}
    assert read_settings(info) == {"INPUT.FORMAT": "BGR"}
    assert read_settings({"cfg": ""}) == {}
    with pytest.raises(Exception, match="could not determine a constructor"):
        read_settings({"cfg": "SEED: !!python/object/apply:os.getcwd []"})


def test_buffers_of_a_model_are_compared_in_single_precision():
    model = nn.Module()
    model.register_buffer("pixel_mean", torch.tensor([103.53, 116.28, 123.675]).view(-1, 1, 1))
    current = read_model_settings(model)
    assert current.keys() == {"MODEL.PIXEL_MEAN"} and current["MODEL.PIXEL_MEAN"] != [103.53, 116.28, 123.675]
    check_settings(settings(), current, "a.pth", Use.BACKBONE)
    model.input_format = "RGB"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is BGR in the checkpoint, RGB in the config"):
        check_settings(settings(), read_model_settings(model), "a.pth", Use.BACKBONE)


def test_changed_keys_have_both_values():
    changes = ("SOLVER.MAX_ITER", 100, "SOLVER.STEPS", (30, 60), "MODEL.CLSNET.POS_WEIGHT", [1.0, 2.5], "SEED", 3)
    assert changed_keys(settings(), settings(*changes)) == {
        "MODEL.CLSNET.POS_WEIGHT": (None, [1.0, 2.5]),
        "SEED": (-1, 3),
        "SOLVER.MAX_ITER": (40000, 100),
        "SOLVER.STEPS": ([30000], [30, 60]),
    }


def test_changed_keys_compare_small_numbers_as_numbers():
    """YAML reads 1e-05 as text because it has no dot."""
    saved = settings("SOLVER.WEIGHT_DECAY", 1e-5)
    assert changed_keys(saved, settings("SOLVER.WEIGHT_DECAY", "0.00001")) == {}
    assert changed_keys(saved, settings("SOLVER.WEIGHT_DECAY", 2e-5)) == {"SOLVER.WEIGHT_DECAY": (1e-5, 2e-5)}


def test_changed_keys_leave_out_what_results_do_not_depend_on():
    changes = (
        "OUTPUT_DIR", "elsewhere", "MODEL.WEIGHTS", "some.pth", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0,
        "SOLVER.CHECKPOINT_PERIOD", 7, "SOLVER.KEEP_CHECKPOINTS", 1, "SOLVER.LOG_PERIOD", 1, "VIS_PERIOD", 5,
        "TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, 0.2]], "MODEL.TIMM.PRETRAINED", True,
        "MODEL.TIMM.CHECKPOINT", "timm.pth", "MODEL.CLSNET.ENABLE", False,
    )  # fmt: skip
    assert changed_keys(settings(), settings()) == {} == changed_keys(settings(), settings(*changes))


def test_changed_keys_of_another_version():
    saved, current = {"SOLVER.OLD": 1, "SOLVER.BASE_LR": 2}, {"SOLVER.BASE_LR": 2, "SOLVER.NEW": [3]}
    assert changed_keys(saved, current) == {"SOLVER.NEW": (ABSENT, [3]), "SOLVER.OLD": (1, ABSENT)}
