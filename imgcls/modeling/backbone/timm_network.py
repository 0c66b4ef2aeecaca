"""A network of timm by its name: created with features instead of a classifier, or refused."""

import difflib
from types import ModuleType
from typing import Any

from torch import nn

from imgcls.errors import UserError


def check_name(name: str, pretrained: bool) -> None:
    """Refuses what timm does not have.

    Raises:
        ValueError: timm is not installed, an unknown name, or no weights of that name though they are wanted.
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
    """All features of a network in forward order, with timm's index; only a built network knows them.

    Raises:
        ValueError: timm cannot build the network with features.
    """
    try:
        info = create_network(name, in_chans=in_channels).feature_info
    except Exception as error:  # each family of networks refuses in its own way
        raise UserError(
            f"MODEL.TIMM.NAME is {name!r}, which timm cannot build with features ({type(error).__name__}: {error}); "
            "allowed: a network that timm.create_model(name, features_only=True) builds"
        ) from error
    names = [row["module"] for row in info.info]
    # A few networks have a feature without a name, which cannot be had, or two of the same name.
    unique = [f"{name}.{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]
    return {unique[index]: index for index, name in enumerate(names) if name}


def create_network(name: str, **kwargs: Any) -> nn.Module:
    """``timm.create_model`` for features, of transformers for pictures of any size."""
    timm = _import_timm()
    try:
        # Most transformers else take pictures of one size only.
        return timm.create_model(name, features_only=True, dynamic_img_size=True, **kwargs)
    except TypeError:  # the other networks know no such argument
        return timm.create_model(name, features_only=True, **kwargs)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(
            f'MODEL.BACKBONE.NAME is one of timm, and {error.name} is not installed: pip install -e ".[timm]"'
        ) from error
    return timm
