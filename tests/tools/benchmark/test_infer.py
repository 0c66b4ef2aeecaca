"""Comparison of inference: all of our candidates return the same logits for the same images."""

import pytest
import torch
from benchmark import infer as module
from benchmark.compare import Budget
from benchmark.infer import EAGER, compare_inference
from benchmark.networks import our_network


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_candidates_are_compared_to_plain_eager(images, width, monkeypatch):
    monkeypatch.setattr(module, "_IMAGES", 1)
    table = compare_inference(images, width, batch=1, budget=Budget(1))
    names = [EAGER, "imgcls, channels_last", "imgcls, channels_last, folded"]
    assert list(table.values) == [*names, *["timm mobilenetv1_100"] * (width == 1.0)]
    assert table.references == [EAGER]


def test_all_of_ours_give_the_same_logits_without_a_graph(images, monkeypatch):
    formats, logits = [], []

    def build(width, **changes):
        torch.manual_seed(0)
        model = our_network(width, **changes)
        formats.append(model.memory_format)
        return model

    def spy(network, images):
        def run():
            real(lambda images: logits.append(network(images)), images)()

        return run

    real = module._call
    monkeypatch.setattr(module, "_call", spy)
    monkeypatch.setattr(module, "our_network", build)
    monkeypatch.setattr(module, "_IMAGES", 1)
    compare_inference(images, 0.25, batch=2, budget=Budget(1))
    assert set(formats) == {torch.contiguous_format, torch.channels_last}
    assert len(logits) == 6 and all(result.shape == (2, 1000) and result.is_inference() for result in logits)
    for result in logits[1:]:
        assert torch.allclose(result, logits[0], atol=1e-4)
