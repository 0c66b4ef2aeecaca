"""What is compared of two networks whose tensors have the same names and shapes."""

import pytest

from imgcls.checkpoint.compat import advise, build_network, check_network, read_network
from imgcls.config import get_cfg


def network(builder, *changes):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", builder, *changes])
    return build_network(cfg)


MNET, TIMM, RESNET = "build_mnetv1_backbone", "build_timm_backbone", "build_resnet_fpn_backbone"


@pytest.mark.parametrize(
    ("builder", "key", "there", "here"),
    [
        (MNET, "MODEL.MNET.ACTIVATION", "relu6", "relu"),
        (MNET, "MODEL.MNET.BN_EPS", 1e-5, 1e-3),
        (MNET, "MODEL.MNET.STEM_STRIDE", 2, 1),
        (TIMM, "MODEL.TIMM.NAME", "efficientnet_b0", "tf_efficientnet_b0"),
        (RESNET, "MODEL.RESNETS.STRIDE_IN_1X1", True, False),
    ],
)
def test_another_function_is_refused_with_the_line_that_mends_it(builder, key, there, here):
    saved, current = network(builder, key, there), network(builder, key, here)
    check_network(saved, saved, "b.pth")
    with pytest.raises(
        ValueError, match=rf"b\.pth is of another network: {key} {there} there, {here} in the"
    ) as raised:
        check_network(saved, current, "b.pth")
    assert str(raised.value).endswith(f'; to use it set {key} "{there}"')


def test_other_widths_are_for_the_tensors_to_tell():
    """Rounded channels may be the same, and so may DEPTH_MULT and BLOCKS."""
    saved, current = network(MNET, "MODEL.MNET.WIDTH_MULT", 0.25), network(MNET, "MODEL.MNET.WIDTH_MULT", 0.26)
    check_network(saved, current, "b.pth")
    assert advise(saved, current) == 'to use it set MODEL.MNET.WIDTH_MULT "0.25"'
    assert advise(saved, saved).startswith("check MODEL.BACKBONE.NAME")


def test_the_weights_of_timm_do_not_matter():
    check_network(
        network(TIMM, "MODEL.TIMM.NAME", "resnet18.a1_in1k"), network(TIMM, "MODEL.TIMM.NAME", "resnet18"), "b.pth"
    )


def test_unknown_builders_and_other_kinds_are_not_compared():
    assert network("build_p67_effnet") == {} == read_network("") == read_network("MODEL: {BACKBONE: {NAME: mine}}")
    check_network(network(MNET), network(RESNET), "b.pth")
