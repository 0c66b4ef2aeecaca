"""Freezing a network of timm up to one of its features, whatever its modules are called and in which order they run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgcls.errors import UserError


def trim_and_freeze(net: nn.Module, used: Sequence[Tensor], frozen: Sequence[Tensor], source: str) -> None:
    """Freezes what ``frozen`` was computed from, and drops or switches off what ``used`` was not computed from.

    Args:
        net: a network of ``timm.create_model(..., features_only=True)``.
        used: outputs of the network, in evaluation mode, with gradients.
        frozen: the same, of those to freeze.
        source: what to call the network in messages.

    Raises:
        ValueError: a norm to freeze that timm cannot freeze.
    """
    needed = _parameters_of(net, used)
    fixed = _parameters_of(net, frozen)
    _drop_blocks(net, needed)
    for name, parameter in net.named_parameters():
        # What no feature needs never gets a gradient, and DDP would wait for it.
        if name in fixed or name not in needed:
            parameter.requires_grad = False
    _freeze_norms(net, fixed, source)


def _parameters_of(net: nn.Module, features: Sequence[Tensor]) -> set[str]:
    """Names of the parameters that features were computed from: those that autograd finds."""
    if not features:
        return set()
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    total = sum(feature.sum() for feature in features)
    grads = torch.autograd.grad(total, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None}


def _drop_blocks(net: nn.Module, needed: set[str]) -> None:
    """timm leaves out what comes after the last feature by itself, but for EfficientNets and their like."""
    blocks = getattr(net, "blocks", None)
    while isinstance(blocks, nn.Sequential) and len(blocks):
        if needed & {name for name, _ in blocks[-1].named_parameters(f"blocks.{len(blocks) - 1}")}:
            break
        del blocks[-1]


def _freeze_norms(net: nn.Module, fixed: set[str], source: str) -> None:
    # detectron2's converter would lose the activation that is inside of many of timm's norms.
    from timm.utils import freeze

    norms = [
        name
        for name, module in net.named_modules()
        if getattr(module, "running_var", None) is not None
        and fixed & {own for own, _ in module.named_parameters(name, recurse=False)}
    ]
    if norms:  # an empty list would mean all of the network
        freeze(net, norms)
    for name in norms:
        module = net.get_submodule(name)
        if list(module.parameters(recurse=False)):  # a frozen norm has buffers only
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT includes {name} of {source}, a {type(module).__name__}, whose statistics "
                "cannot be frozen; allowed: 0, or a feature before it"
            )
