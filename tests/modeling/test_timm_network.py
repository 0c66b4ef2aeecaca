"""What timm has under a name, and what it has not."""

import sys

import pytest
import timm

from imgcls.modeling.timm_backbone import TimmBackbone
from imgcls.modeling.timm_network import check_name, find_features


def test_features_without_a_name_are_left_out_and_names_are_made_unique():
    assert find_features("tresnet_m", 3) == {f"body.layer{i}": i for i in (1, 2, 3, 4)}
    shapes = TimmBackbone("crossvit_9_240").output_shape()
    assert list(shapes) == ["blocks.0.0", "blocks.1.1", "blocks.2.2", "blocks.0.3", "blocks.1.4", "blocks.2.5"]
    assert [shape.channels for shape in shapes.values()] == [128, 128, 128, 256, 256, 256]


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k"])
def test_a_name_may_have_the_tag_of_its_weights(name):
    check_name(name, pretrained=True)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("", {}, r"MODEL\.TIMM\.NAME is ''; allowed: one of timm\.list_models\(\)"),
        ("resnet_18", {}, r"MODEL\.TIMM\.NAME is 'resnet_18'; did you mean .*resnet18"),
        ("resnet18.no_such_weights", {}, r"MODEL\.TIMM\.NAME is 'resnet18\.no_such_weights'"),
        ("hf-hub:timm/resnet18", {}, r"MODEL\.TIMM\.NAME is 'hf-hub:timm/resnet18'"),
        ("test_mambaout", {"pretrained": True}, r"PRETRAINED is True, and timm has no weights of test_mambaout"),
    ],
)
def test_unknown_names_and_weights_are_refused(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, **kwargs)


def test_a_network_that_offers_no_features_is_refused(monkeypatch):
    def refuse(name, **kwargs):
        raise RuntimeError("features_only not implemented for this")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        ValueError, match=r"NAME is 'test_resnet', which timm cannot build with features \(RuntimeError"
    ):
        TimmBackbone("test_resnet")


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'timm is not installed: pip install -e "\.\[timm\]"'):
        TimmBackbone("resnet18")
