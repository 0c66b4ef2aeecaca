import torch
from detectron2.layers import ShapeSpec
from torch.nn import functional

from imgcls.modeling import ClsHead


def test_pool_and_linear():
    head = ClsHead(ShapeSpec(channels=6), 4).eval()
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.normal_(head.linear.bias)
    feature = torch.randn(2, 6, 3, 5)
    expected = functional.linear(feature.mean((2, 3)), head.linear.weight, head.linear.bias)
    torch.testing.assert_close(head(feature), expected)
    assert head.num_classes == 4


def test_convolution_comes_before_the_pooling():
    head = ClsHead(ShapeSpec(channels=6), 4, conv_dim=16).eval()
    assert head.linear.in_features == 16
    feature = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(head(feature), head.linear(head.conv(feature).mean((2, 3))))


def test_dropout_is_active_in_training_only():
    head = ClsHead(ShapeSpec(channels=64), 4, dropout=0.5)
    feature = torch.rand(2, 64, 1, 1)
    assert not torch.equal(head.train()(feature), head(feature))
    assert torch.equal(head.eval()(feature), head(feature))
