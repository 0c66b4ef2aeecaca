"""The race of training steps: candidates, and that each of them trains."""

import torch
from benchmark import step as module
from benchmark.networks import our_network, read_batch
from benchmark.step import our_step, race_steps, timm_step


def test_ours_beside_the_same_contiguous(images, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", {})
    table = race_steps(images, 0.25, rounds=2, batch=2, compiled=False)
    assert list(table.values) == ["imgcls", "imgcls, contiguous"]
    assert table.references == ["imgcls, contiguous"]


def test_at_width_1_beside_timms_too(images):
    table = race_steps(images, 1.0, rounds=1, batch=2, compiled=False)
    assert list(table.values) == ["imgcls", "imgcls, contiguous", "timm mobilenetv1_100"]
    assert table.references == ["imgcls, contiguous", "timm mobilenetv1_100"]


def test_a_step_changes_the_weights_and_the_memory_format_is_the_configs(images, monkeypatch):
    made = []
    monkeypatch.setattr(module, "our_network", lambda *a, **k: made.append(our_network(*a, **k)) or made[-1])
    data = read_batch(images, 2)
    for changes, layout in (({}, torch.channels_last), ({"MODEL__CHANNELS_LAST": False}, torch.contiguous_format)):
        step = our_step(data, 0.25, **changes)
        assert made[-1].training and made[-1].memory_format is layout
        weight = made[-1].head.fc.weight if hasattr(made[-1].head, "fc") else next(made[-1].head.parameters())
        before = weight.detach().clone()
        step()
        assert not torch.equal(weight, before)


def test_timms_step_trains_its_network(images, monkeypatch):
    made = []
    real = module.timm_network
    monkeypatch.setattr(module, "timm_network", lambda: made.append(real()) or made[-1])
    step = timm_step(read_batch(images, 2))
    before = made[0].classifier.weight.detach().clone()
    step()
    assert made[0].training and not torch.equal(made[0].classifier.weight, before)
