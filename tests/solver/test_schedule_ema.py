import torch
from torch import nn

from imgcls.config import get_cfg
from imgcls.solver import build_ema


def test_none_by_default():
    assert build_ema(get_cfg(), nn.Linear(1, 1)) is None


def test_average_is_the_formula_also_for_statistics():
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
