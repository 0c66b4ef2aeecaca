import pytest
import torch
import torchvision

from imgcls.modeling import ClsHead, mobilenet_v2


@pytest.mark.parametrize("width", [1.0, 0.5, 1.4])
def test_same_logits_as_torchvision_with_its_weights(width):
    """Copied tensor by tensor: both nets hold them in the same order."""
    theirs = torchvision.models.mobilenet_v2(width_mult=width).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    backbone = mobilenet_v2(width_mult=width).eval()
    head = ClsHead(backbone.output_shape()["mob5"], 1000, conv_dim=theirs.last_channel).eval()
    ours = {
        **{f"b.{k}": v for k, v in backbone.state_dict().items()},
        **{f"h.{k}": v for k, v in head.state_dict().items()},
    }
    source = theirs.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in source.values()]
    for target, value in zip(ours.values(), source.values(), strict=True):
        target.copy_(value)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(head(backbone(x)["mob5"]), theirs(x), atol=1e-5, rtol=1e-5)
