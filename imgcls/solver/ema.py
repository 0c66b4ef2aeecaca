"""An exponential moving average of the weights."""

from detectron2.config import CfgNode
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def build_ema(cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
    """The average that ``SOLVER.EMA_DECAY`` asks for, with BN's statistics averaged alike; None for 0.

    Its first update copies the weights, so that loaded ones are what it starts from.

    Args:
        model: not wrapped for distributed training.
    """
    decay = cfg.SOLVER.EMA_DECAY
    if decay == 0:
        return None
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    ema.n_averaged = ema.n_averaged.cpu()  # it is looked at in every step, and a GPU should not be waited for
    return ema
