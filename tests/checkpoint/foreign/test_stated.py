"""Values that a user states by mistake are refused."""

import pytest

from imgcls.checkpoint.foreign import Stated


def test_only_what_is_given_is_returned():
    assert Stated().given() == {}
    said = Stated(pixel_format="BGR", pixel_mean=(104, 117, 123), pixel_std=(1, 1, 1))
    assert said.given() == {"pixel_format": "BGR", "pixel_mean": [104.0, 117.0, 123.0], "pixel_std": [1.0, 1.0, 1.0]}
    assert Stated(pixel_mean=(0, 0, 0), pixel_std=(255, 255, 255)).given()["pixel_mean"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"pixel_format": "rgb"}, "--format is 'rgb'; allowed: BGR, RGB"),
        ({"activation": "gelu"}, "--activation is 'gelu'; allowed: relu6, relu, leaky_relu"),
        ({"pixel_mean": (1, 2)}, r"--mean is \[1, 2\]; allowed: three numbers, 0 to 255, in the order of --format"),
        ({"pixel_mean": (1, 2, float("nan"))}, r"--mean is .*nan\]; allowed: three"),
        ({"pixel_mean": (-0.5, 2, 3)}, r"--mean is \[-0\.5, 2, 3\]; allowed: three"),
        ({"pixel_std": (1, 0, 1)}, r"--std is \[1, 0, 1\]; allowed: three numbers, above 0 to 255"),
        (
            {"pixel_mean": (0.485, 0.456, 0.406)},
            r"--mean is \[0\.485, .*, for pixels from 0 to 1; allowed: .* 0 to 255: 123\.675 116\.28 103\.53$",
        ),
        ({"pixel_std": (0.229, 0.224, 0.225)}, r"for pixels from 0 to 255: 58\.395 57\.12 57\.375$"),
    ],
)
def test_refusals(stated, message):
    with pytest.raises(ValueError, match=message):
        Stated(**stated)
