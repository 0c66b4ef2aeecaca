"""Random weights of timm's networks, converted: the same logits and features from the same images."""

import pytest
import timm

from imgcls.checkpoint.foreign import convert


@pytest.mark.parametrize(("name", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_same_network(raw, settle, check_same, check_complete, name, width):
    net = settle(timm.create_model(name, num_classes=10), raw / 127.5 - 1)
    converted = convert("timm", {"model": net.state_dict()})
    check_complete(net.state_dict(), converted)
    below = timm.create_model(name, features_only=True).eval()
    assert below.load_state_dict(net.state_dict(), strict=False).missing_keys == []
    cfg = check_same(net, lambda x: below(x)[1:], lambda x: (x / 255 - 0.5) / 0.5, converted, raw)
    assert width == cfg.MODEL.MNET.WIDTH_MULT and cfg.MODEL.BACKBONE.FREEZE_AT == 0
    given = timm.get_pretrained_cfg(f"{name}.ra4_e3600_r224_in1k")
    assert converted["imgcls"]["preprocessing"] == {
        "format": "RGB",
        "pixel_mean": [255 * value for value in given.mean],
        "pixel_std": [255 * value for value in given.std],
        "value_range": [0, 255],
        "resize": f"{given.interpolation}, antialiased",
        "input_size": given.input_size[-1],
        "crop_pct": given.crop_pct,
    }
