"""Comparison of a file with a backbone, tensor by tensor."""

import pytest
import torch
from torch import nn

from imgcls.checkpoint import compare


@pytest.fixture
def net():
    return nn.ModuleDict({"stages": nn.ModuleDict({"stem": nn.BatchNorm2d(2), "mob2": nn.Linear(2, 3)})})


@pytest.fixture
def tensors(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_complete(net, tensors):
    report = compare(net, tensors, "b.pth", values=True)
    assert report.complete and report.problems() == []
    assert report.summary() == "6/6 backbone tensors loaded"  # BN's counter is not one
    assert compare(net, {n: t for n, t in tensors.items() if "num_batches" not in n}, "b.pth", values=True).complete


@pytest.mark.parametrize(
    ("change", "problem", "count"),
    [
        (lambda t: t.pop("stages.stem.bias"), "stages.stem.bias is missing in the file", "5/6"),
        (
            lambda t: t.update({"stages.stem.extra": torch.zeros(1)}),
            "stages.stem.extra is not in the model",
            "6/6",
        ),
        (
            lambda t: t.update({"stages.mob2.bias": torch.zeros(4)}),
            "stages.mob2.bias is (4,) in the file, (3,) in the model",
            "5/6",
        ),
        (
            lambda t: t["stages.mob2.weight"].view(-1)[0].add_(1e-6),
            "stages.mob2.weight has other values in the model than in the file",
            "5/6",
        ),
    ],
)
def test_one_tensor_that_does_not_fit(net, tensors, change, problem, count):
    change(tensors)
    report = compare(net, tensors, "b.pth", values=True)
    assert not report.complete and report.problems() == [problem]
    assert report.summary() == f"{count} backbone tensors loaded"


def test_values_are_compared_only_on_request(net, tensors):
    tensors["stages.mob2.weight"] += 1
    assert compare(net, tensors, "b.pth", values=False).complete


def test_a_stage_that_is_not_built_is_left_out_and_named(net, tensors):
    report = compare(net, {**tensors, "stages.mob3.weight": torch.zeros(1)}, "b.pth", values=True)
    assert report.complete and report.left_out == ["stages.mob3.weight"]
    assert report.summary().endswith("loaded (stages.mob3 of the file left out: the model does not build it)")


def test_nothing_in_common_is_not_complete():
    assert not compare(nn.Module(), {}, "b.pth", values=True).complete
    assert not compare(nn.Module(), {"res5.weight": torch.zeros(1)}, "b.pth", values=True).complete
