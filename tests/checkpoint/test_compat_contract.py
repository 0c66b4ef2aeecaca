import pytest

from imgcls.checkpoint import build_contract, check_contract
from imgcls.config import get_cfg


def test_holds_the_config_in_plain_types():
    cfg = get_cfg()
    contract = build_contract(cfg)
    assert contract["format"] == "BGR" and contract["pixel_mean"] == [103.53, 116.28, 123.675]
    assert contract["value_range"] == [0, 255] and contract["input_size"] == 224
    check_contract(contract, build_contract(cfg), "file")


def test_another_size_is_no_mismatch():
    cfg = get_cfg()
    saved = build_contract(cfg)
    cfg.MODEL.CLSNET.INPUT_SIZE = 160
    check_contract(saved, build_contract(cfg), "file")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("INPUT.FORMAT", "RGB", 'INPUT.FORMAT "BGR"'),
        ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], 'MODEL.PIXEL_MEAN "[103.53, 116.28, 123.675]"'),
        ("MODEL.PIXEL_STD", [2.0, 2.0, 2.0], 'MODEL.PIXEL_STD "[1.0, 1.0, 1.0]"'),
    ],
)
def test_mismatch_names_both_sides_and_the_line_that_mends_it(key, value, line):
    cfg = get_cfg()
    saved = build_contract(cfg)
    cfg.merge_from_list([key, str(value)])
    with pytest.raises(ValueError, match=r"model\.pth was trained on other preprocessing") as raised:
        check_contract(saved, build_contract(cfg), "model.pth")
    assert str(value) in str(raised.value) and str(raised.value).endswith(f"to use it set {line}")
