import pytest
import torch
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from imgcls.config import get_cfg
from imgcls.solver import EmaModel, apply_schedule, build_ema, iterations, read_options


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch_size", "expected"),
    [(1, 100, 10, 10), (3, 100, 32, 9), (120, 1_281_167, 1024, 150_137), (0, 100, 10, 0), (1, 5, 64, 1), (2, 5, 64, 1)],
)
def test_iterations_see_every_image_once_per_epoch(epochs, num_images, batch_size, expected):
    assert iterations(epochs, num_images, batch_size) == expected
    assert abs(expected * batch_size - epochs * num_images) <= max(batch_size / 2, batch_size - num_images)


def build(**solver):
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            part
            for key, value in {"MAX_ITER": 10, "STEPS": (6,), "WARMUP_ITERS": 3, "BASE_LR": 0.1, **solver}.items()
            for part in (f"SOLVER.{key}", value)
        ]
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    optimizer = build_optimizer(cfg, model)
    return model, optimizer, build_lr_scheduler(cfg, optimizer)


def run(parts, count):
    model, optimizer, scheduler = parts
    for _ in range(count):
        optimizer.zero_grad()
        (model(torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0]])) - 1).square().mean().backward()
        optimizer.step()
        scheduler.step()


def resume(parts, from_parts):
    """Loads a checkpoint as a trainer does."""
    options, base_lrs = read_options(parts[1]), parts[2].base_lrs
    for part, state in zip(parts, [part.state_dict() for part in from_parts], strict=True):
        part.load_state_dict(state)
    apply_schedule(parts[1], parts[2], options, base_lrs)
    return parts


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resuming_with_the_same_config_changes_nothing(stop):
    whole, half = build(), build()
    run(whole, stop)
    run(half, stop)
    resumed = resume(build(), half)
    assert rates(resumed[1]) == rates(whole[1])
    run(whole, 10 - stop)
    run(resumed, 10 - stop)
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


def test_a_changed_config_applies_from_the_checkpoint_on():
    """Without apply_schedule, the checkpoint's learning rate and weight decay would override the config's."""
    half = build()
    run(half, 4)
    resumed = resume(build(BASE_LR=0.5, WEIGHT_DECAY=0.25, MOMENTUM=0.5), half)
    assert rates(resumed[1]) == pytest.approx([0.5] * len(half[1].param_groups))
    assert {group["momentum"] for group in resumed[1].param_groups} == {0.5}
    assert 0.25 in {group["weight_decay"] for group in resumed[1].param_groups}
    run(resumed, 3)
    assert rates(resumed[1]) == pytest.approx([0.05] * len(half[1].param_groups))


def test_no_average_by_default():
    assert build_ema(get_cfg(), nn.Linear(1, 1)) is None


def test_average_follows_the_formula_for_statistics_too():
    cfg = get_cfg()
    cfg.SOLVER.EMA_DECAY = 0.75
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = build_ema(cfg, model)
    expected = None
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3))  # moves the statistics
        ema.update_parameters(model)
        now = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
        # The first update is a copy.
        expected = now if expected is None else {key: 0.75 * expected[key] + 0.25 * now[key] for key in now}
    assert len(expected) == 6
    for name, value in expected.items():
        torch.testing.assert_close(ema.module.state_dict()[name], value)
    assert ema.state_dict()["n_averaged"] == 4


class CopyRecorder(TorchDispatchMode):
    """Records the operators that move a tensor to another device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "to_copy" in str(func):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_update_moves_nothing_between_devices():
    """On a GPU a copy of the counter waits for the whole training step; the meta device shows it without one."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("meta")
    ema = EmaModel(model, 0.9)
    with CopyRecorder() as copies:
        for _ in range(3):
            ema.update_parameters(model)
    assert copies.found == [] and ema.n_averaged == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_update_does_not_wait_for_a_gpu():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("cuda")
    ema = EmaModel(model, 0.9)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            ema.update_parameters(model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert ema.n_averaged == 3 and next(ema.module.parameters()).device.type == "cuda"
