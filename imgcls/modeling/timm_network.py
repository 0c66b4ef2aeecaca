"""Creates timm networks that return features instead of logits, and freezes parts of them."""

import difflib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imgcls.errors import UserError


def check_name(name: str, pretrained: bool) -> None:
    """Checks that timm has a network of that name.

    Raises:
        UserError: timm is not installed, the name is unknown, or pretrained weights are requested and timm has none.
    """
    timm = _import_timm()
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"MODEL.TIMM.NAME is {name!r}; {hint}allowed: one of timm.list_models(), such as 'resnet18'")
    if pretrained and not timm.is_model_pretrained(name):
        raise UserError(
            f"MODEL.TIMM.PRETRAINED is True, and timm has no weights of {name}; "
            "allowed: False, or a MODEL.TIMM.NAME of timm.list_pretrained()"
        )


def find_features(name: str, in_channels: int) -> dict[str, int]:
    """Lists all features of a network in forward order, each with its index in timm's ``out_indices``.

    Raises:
        UserError: timm cannot build the network with features.
    """
    try:
        with torch.device("meta"):  # only a built network lists its features, but its weights need no memory
            info = create_network(name, in_chans=in_channels).feature_info
    except Exception as error:  # which exception depends on the family of the network
        raise UserError(
            f"MODEL.TIMM.NAME is {name!r}, which timm cannot build with features ({type(error).__name__}: {error}); "
            "allowed: a network that timm.create_model(name, features_only=True) builds"
        ) from error
    names = [row["module"] for row in info.info]
    # A few networks have a feature without a name, which cannot be requested, or two of the same name.
    unique = [f"{name}.{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]
    return {unique[index]: index for index, name in enumerate(names) if name}


def create_network(name: str, **kwargs: Any) -> Any:
    """Calls ``timm.create_model`` with features; transformers accept images of any size where timm supports it."""
    timm = _import_timm()
    try:
        # Without this argument most transformers accept images of a single size only.
        return timm.create_model(name, features_only=True, dynamic_img_size=True, **kwargs)
    except TypeError:  # other networks do not have the argument
        return timm.create_model(name, features_only=True, **kwargs)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(
            f'MODEL.BACKBONE.NAME needs timm, and {error.name} is not installed: pip install -e ".[timm]"'
        ) from error
    return timm


def trim_and_freeze(net: nn.Module, used: Sequence[Tensor], frozen: Sequence[Tensor], source: str) -> None:
    """Freezes what ``frozen`` was computed from, and removes or freezes what ``used`` was not computed from.

    Args:
        net: a network of ``timm.create_model(..., features_only=True)``.
        used: outputs of the network in evaluation mode, with gradients.
        frozen: the outputs whose parameters are frozen.
        source: name of the network in messages.

    Raises:
        UserError: timm cannot freeze one of the norms.
    """
    needed = _parameters_of(net, used)
    fixed = _parameters_of(net, frozen)
    _drop_blocks(net, needed)
    for name, parameter in net.named_parameters():
        # A parameter that no feature needs never gets a gradient, which DDP would wait for.
        if name in fixed or name not in needed:
            parameter.requires_grad = False
    _freeze_norms(net, fixed, source)


def _parameters_of(net: nn.Module, features: Sequence[Tensor]) -> set[str]:
    """Finds the names of the parameters that features were computed from, by autograd."""
    if not features:
        return set()
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    total = torch.stack([feature.sum() for feature in features]).sum()
    grads = torch.autograd.grad(total, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None}


def _drop_blocks(net: nn.Module, needed: set[str]) -> None:
    """Removes what comes after the last feature, which timm itself does for all but EfficientNet-like networks."""
    blocks = getattr(net, "blocks", None)
    while isinstance(blocks, nn.Sequential) and len(blocks):
        if needed & {name for name, _ in blocks[-1].named_parameters(f"blocks.{len(blocks) - 1}")}:
            break
        del blocks[-1]


def _freeze_norms(net: nn.Module, fixed: set[str], source: str) -> None:
    # detectron2's converter would drop the activation that many of timm's norms contain.
    from timm.utils import freeze

    norms = [
        name
        for name, module in net.named_modules()
        if getattr(module, "running_var", None) is not None
        and fixed & {own for own, _ in module.named_parameters(name, recurse=False)}
    ]
    if norms:  # an empty list would freeze the whole network
        freeze(net, norms)
    for name in norms:
        module = net.get_submodule(name)
        if list(module.parameters(recurse=False)):  # a frozen norm has buffers only
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT includes {name} of {source}, a {type(module).__name__}, whose statistics "
                "cannot be frozen; allowed: 0, or a feature before it"
            )
