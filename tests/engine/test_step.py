import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from imgcls.engine.step import FiniteCheck, TrainStep, build_step
from imgcls.modeling import ClsNet
from imgcls.structures import stack


class Net(nn.Module):
    """The smallest model with a training forward like a detector's."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4)
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(4, 2)
        self.drawn = []

    def forward(self, batch):
        features = self.norm(self.conv(batch["image"])).mean((2, 3))
        self.drawn.append(self.dropout(torch.ones(64)).detach())
        loss = nn.functional.cross_entropy(self.linear(features).float(), batch["label"])
        return {"loss_a": loss, "loss_b": 0.5 * loss}


def batch(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(count, 3, 8, 8, generator=generator),
        "label": torch.arange(count) % 2,
        "image_id": [f"id{number}" for number in range(count)],
    }


def part(whole, start, stop):
    return {key: value[start:stop] for key, value in whole.items()}


def step(model, **options):
    return TrainStep(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), **options)


def same_nets(count, **options):
    nets = []
    for _ in range(count):
        torch.manual_seed(1)
        nets.append(Net(**options))
    return nets


def test_is_plain_pytorch():
    one, other = same_nets(2)
    losses, waited = step(one)(iter([batch()]), 0)
    optimizer = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
    expected = other(batch())
    sum(expected.values()).backward()
    optimizer.step()
    assert losses["loss_a"] == expected["loss_a"] and losses["loss_b"] == expected["loss_b"] and waited >= 0
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, parts = same_nets(2)
    at_once, _ = step(whole)(iter([batch()]), 0)
    quarters = iter([part(batch(), start, start + 2) for start in range(0, 8, 2)])
    accumulated, _ = step(parts, accum_steps=4)(quarters, 0)
    assert next(quarters, None) is None
    torch.testing.assert_close(accumulated, at_once)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision_follows_full_precision(precision):
    full, mixed = same_nets(2)
    exact, low = step(full), step(mixed, precision=precision)
    for iteration in range(30):
        reference, _ = exact(iter([batch(seed=iteration)]), iteration)
        losses, _ = low(iter([batch(seed=iteration)]), iteration)
    assert losses["loss_a"] == pytest.approx(reference["loss_a"].item(), abs=0.02)
    assert losses["loss_a"] != reference["loss_a"], "it was not on"
    assert mixed.conv.weight.dtype == torch.float32
    assert low.scaler.is_enabled() == (precision is torch.float16)


def test_gradients_are_unscaled_before_the_optimizer_may_clip_them():
    full, mixed = same_nets(2)
    step(full)(iter([batch()]), 0)
    step(mixed, precision=torch.float16)(iter([batch()]), 0)
    torch.testing.assert_close(mixed.conv.weight.grad, full.conv.weight.grad, rtol=0.05, atol=1e-3)


def test_random_numbers_depend_on_seed_and_iteration_only():
    draws = {}
    for name, seed, iterations in (("whole", 5, (0, 1, 2)), ("resumed", 5, (2,)), ("other", 6, (2,))):
        model = Net(dropout=0.5)
        torch.manual_seed(len(draws))  # whatever came before
        trained = step(model, seed=seed)
        for iteration in iterations:
            trained(iter([batch()]), iteration)
        draws[name] = model.drawn[-1]
        assert not all(torch.equal(model.drawn[0], drawn) for drawn in model.drawn[1:]) or len(iterations) == 1
    assert torch.equal(draws["whole"], draws["resumed"]) and not torch.equal(draws["whole"], draws["other"])


def test_average_follows_every_step():
    (model,) = same_nets(1)
    ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    trained = step(model, ema=ema)
    trained(iter([batch()]), 0)
    first = model.linear.weight.detach().clone()
    trained(iter([batch()]), 1)
    torch.testing.assert_close(ema.module.linear.weight, (first + model.linear.weight) / 2)


@pytest.mark.parametrize("form", ["stacked", "list"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_see_it(tmp_path, form):
    (model,) = same_nets(1)
    (tmp_path / "last_checkpoint").write_text("model_0000041.pth")
    trained = step(model, run_folder=str(tmp_path))
    bad = batch(3)
    bad["image"][1] = torch.inf
    if form == "list":
        stacked = model.forward
        bad = [{key: value[i] for key, value in bad.items()} for i in range(3)]
        model.forward = lambda samples: stacked(stack(samples))
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(FloatingPointError) as raised:
        trained(iter([bad]), 42)
    message = str(raised.value)
    for said in ("iteration 42", "loss_a nan, loss_b nan", "rate 0.1", "['id0', 'id1', 'id2']", "model_0000041.pth"):
        assert said in message
    assert "\n" not in message
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_gpu_is_looked_at_when_it_is_time(tmp_path):
    """The same check as on a GPU, whose losses are not looked at in the step."""
    check = FiniteCheck("cuda", str(tmp_path))
    for iteration, value in enumerate([1.0, torch.inf, torch.nan, 1.0]):
        loss = torch.tensor(value)
        check.add({"loss_a": loss, "loss_b": torch.tensor(2.0)}, batch(2, iteration), iteration, 0.1 * iteration)
    with pytest.raises(
        FloatingPointError, match=r"at iteration 1 \(loss_a inf, loss_b 2; learning rate 0.1; .*'id1'\]"
    ):
        check.check()
    check.check()
    check.add({"loss_a": torch.tensor(1.0)}, batch(2), 4, 0.1)
    check.check()


def test_is_built_from_the_config(tiny_cfg):
    model = ClsNet(tiny_cfg)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    built = build_step(tiny_cfg, model, optimizer, None)
    assert (built.accum_steps, built.precision, built.seed) == (1, None, 7)
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.SOLVER.AMP.PRECISION, tiny_cfg.SOLVER.ACCUM_STEPS = True, "bfloat16", 2
    built = build_step(tiny_cfg, model, optimizer, None)
    assert built.precision is torch.bfloat16 and built.accum_steps == 2 and not built.scaler.is_enabled()


def test_the_head_is_trained_alone_at_the_start(tiny_cfg):
    """As plain PyTorch does it: the backbone in evaluation mode, and an optimizer that has only the head."""
    torch.manual_seed(0)
    model = ClsNet(tiny_cfg)
    other = copy.deepcopy(model)
    backbone = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = {"image": images, "label": torch.tensor([0, 1, 2, 0])}
    train = step(model, head_only=3)
    optimizer = torch.optim.SGD(other.head.parameters(), 0.1, momentum=0.9)
    other.backbone.eval()
    for iteration in range(3):
        train(iter([data]), iteration)
        optimizer.zero_grad()
        features = other.backbone((images - other.pixel_mean) / other.pixel_std)["mob5"]
        nn.functional.cross_entropy(other.head(features), data["label"]).backward()
        optimizer.step()
        assert all(torch.equal(model.backbone.state_dict()[key], value) for key, value in backbone.items())
        assert all(parameter.grad is None for parameter in model.backbone.parameters())
        torch.testing.assert_close(model.head.linear.weight, other.head.linear.weight)
        model.eval()  # an evaluation in between
        model.train()
    train(iter([data]), 3)
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    changed = [key for key, value in backbone.items() if not torch.equal(model.backbone.state_dict()[key], value)]
    assert changed == list(backbone), "weights, statistics and counters"
