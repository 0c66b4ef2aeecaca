"""Comparison of training steps: the candidates, and that each of them trains."""

from argparse import Namespace

import pytest
import torch
from benchmark import step as module
from benchmark.compare import Budget
from benchmark.networks import our_network, read_batch
from benchmark.step import compare_steps, our_step, timm_step


def test_ours_is_compared_to_the_same_step_on_contiguous_tensors(images, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", {})
    table = compare_steps(images, 0.25, Budget(1), batch=2)
    assert list(table.values) == ["imgcls", "imgcls, contiguous"]
    assert table.references == ["imgcls, contiguous"]


def test_at_width_1_timm_takes_part(images, monkeypatch):
    monkeypatch.setattr(module, "our_step", lambda *_, **__: lambda: None)
    monkeypatch.setattr(module, "timm_step", lambda data: lambda: None)
    table = compare_steps(images, 1.0, budget=Budget(1), batch=2)
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


def test_the_compiled_step_is_compared_to_the_eager_one_too(images, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "our_step", lambda data, width, **changes: asked.append(changes) or (lambda: None))
    table = compare_steps(images, 0.25, Budget(1), batch=2, compiled=True)
    assert list(table.values) == ["imgcls", "imgcls, contiguous", "imgcls, compiled"]
    assert table.references == ["imgcls, contiguous", "imgcls"]
    assert asked[-1] == {"MODEL__COMPILE": True}


@pytest.mark.parametrize("minutes", [5, 1e-9])
def test_compiling_the_wider_network_is_left_out_if_there_is_no_time(images, monkeypatch, minutes):
    monkeypatch.setattr(module, "our_step", lambda *_, **__: lambda: None)
    monkeypatch.setattr(module, "timm_step", lambda data: lambda: None)
    monkeypatch.setattr(module, "BATCH", 2)
    report = module.measure_compiled(Namespace(data=str(images), rounds=1, minutes=minutes))
    assert len(report.tables) == (2 if minutes == 5 else 1)
    assert list(report.facts) == ([] if minutes == 5 else ["width 1.0"])
