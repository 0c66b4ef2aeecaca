import pytest
import torch
from detectron2.solver import build_lr_scheduler, build_optimizer

from imgcls.config import get_cfg
from imgcls.solver import apply_schedule, read_options


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


def go_on(parts, from_parts):
    """What a trainer does with a checkpoint."""
    options, base_lrs = read_options(parts[1]), parts[2].base_lrs
    for part, state in zip(parts, [part.state_dict() for part in from_parts], strict=True):
        part.load_state_dict(state)
    apply_schedule(parts[1], parts[2], options, base_lrs)
    return parts


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_the_same_config_goes_on_as_if_nothing_had_been(stop):
    whole, half = build(), build()
    run(whole, stop)
    run(half, stop)
    resumed = go_on(build(), half)
    assert rates(resumed[1]) == rates(whole[1])
    run(whole, 10 - stop)
    run(resumed, 10 - stop)
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


def test_a_changed_config_holds_from_the_checkpoint_on():
    """Without apply_schedule, the checkpoint's rate and weight decay stay, whatever the config says."""
    half = build()
    run(half, 4)
    resumed = go_on(build(BASE_LR=0.5, WEIGHT_DECAY=0.25, MOMENTUM=0.5), half)
    assert rates(resumed[1]) == pytest.approx([0.5] * len(half[1].param_groups))
    assert {group["momentum"] for group in resumed[1].param_groups} == {0.5}
    assert 0.25 in {group["weight_decay"] for group in resumed[1].param_groups}
    run(resumed, 3)
    assert rates(resumed[1]) == pytest.approx([0.05] * len(half[1].param_groups))
