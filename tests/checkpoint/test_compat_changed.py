import pytest

from imgcls.checkpoint import changed_keys
from imgcls.checkpoint.compat import ABSENT, check_fixed
from imgcls.config import get_cfg


def dump(*changes):
    cfg = get_cfg()
    cfg.merge_from_list(list(changes))
    return cfg.dump()


def test_names_the_keys_with_both_values():
    changes = ("SOLVER.MAX_ITER", 100, "SOLVER.STEPS", (30, 60), "MODEL.CLSNET.POS_WEIGHT", [1.0, 2.5], "SEED", 3)
    assert changed_keys(dump(), dump(*changes)) == {
        "MODEL.CLSNET.POS_WEIGHT": (None, [1.0, 2.5]),
        "SEED": (-1, 3),
        "SOLVER.MAX_ITER": (40000, 100),
        "SOLVER.STEPS": ([30000], [30, 60]),
    }


def test_small_numbers_are_numbers():
    """YAML reads 1e-05 as text where the dot is missing."""
    assert changed_keys(dump("SOLVER.WEIGHT_DECAY", 1e-5), dump("SOLVER.WEIGHT_DECAY", "0.00001")) == {}
    assert changed_keys(dump("SOLVER.WEIGHT_DECAY", 1e-5), dump("SOLVER.WEIGHT_DECAY", 2e-5)) == {
        "SOLVER.WEIGHT_DECAY": (1e-5, 2e-5)
    }


def test_the_same_config_and_what_nothing_depends_on():
    changes = (
        "OUTPUT_DIR", "elsewhere", "MODEL.WEIGHTS", "some.pth", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0,
        "SOLVER.CHECKPOINT_PERIOD", 7, "SOLVER.KEEP_CHECKPOINTS", 1, "SOLVER.LOG_PERIOD", 1, "VIS_PERIOD", 5,
        "TEST.EXPECTED_RESULTS", [["bbox", "AP", 38.5, 0.2]], "MODEL.TIMM.PRETRAINED", True,
        "MODEL.CLSNET.ENABLE", False,
    )  # fmt: skip
    assert changed_keys(dump(), dump()) == {} == changed_keys(dump(), dump(*changes))


def test_keys_of_another_version():
    assert changed_keys("SOLVER: {OLD: 1, BASE_LR: 2}", "SOLVER: {BASE_LR: 2, NEW: [3]}") == {
        "SOLVER.NEW": (ABSENT, [3]),
        "SOLVER.OLD": (1, ABSENT),
    }


def test_text_is_not_run():
    with pytest.raises(Exception, match="could not determine a constructor"):
        changed_keys("SEED: !!python/object/apply:os.getcwd []", dump())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.META_ARCHITECTURE", "ClsNet"),
        ("MODEL.BACKBONE.NAME", "build_mnetv2_backbone"),
        ("MODEL.BACKBONE.FREEZE_AT", 0),
        ("MODEL.MNET.ACTIVATION", "relu"),
        ("MODEL.MNET.BN_EPS", 0.001),
        ("MODEL.MNET.NORM", "FrozenBN"),
        ("MODEL.MNET.STEM_STRIDE", 1),
        ("MODEL.CLSNET.HEAD", "sigmoid"),
        ("MODEL.CLSNET.IN_FEATURES", ["mob4"]),
    ],
)
def test_another_network_is_refused_though_its_tensors_may_fit(key, value):
    old = changed_keys(dump(), dump(key, value))[key][0]
    with pytest.raises(ValueError, match=r"^--resume: a\.pth is of another network: ") as raised:
        check_fixed(dump(), dump(key, value), "a.pth")
    assert f'{key} {old} there, {value} in the config; to go on from it set {key} "{old}"' in str(raised.value)


def test_a_schedule_and_a_key_that_one_side_does_not_know_are_not_another_network():
    check_fixed(dump(), dump("SOLVER.BASE_LR", 3.0, "MODEL.CLSNET.INPUT_SIZE", 96), "a.pth")
    check_fixed("SEED: 3", dump(), "a.pth")
