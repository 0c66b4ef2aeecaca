"""Loads a local file with timm's weights into a network that returns features, either completely or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgcls.checkpoint.foreign import read_weights
from imgcls.errors import UserError

_COUNTER = "num_batches_tracked"  # of batch norm; no output depends on it


def load_weights(net: nn.Module, name: str, path: str, in_channels: int = 3) -> str:
    """Copies the weights of a whole timm network into the same network without its classifier.

    The file is compared with the whole network, so that a file of another network is refused even if what is left
    after the last feature would fit. Its classifier may have any number of classes, or be missing.

    Args:
        net: from ``timm.create_model(name, features_only=True)``; tensors of later layers are left out.
        name: of the network in timm.
        path: a ``.pth`` or ``.safetensors`` file with the names of ``timm.create_model(name)``, which is not unpickled.
        in_channels: channels of the image.

    Returns:
        What was loaded, in one line.

    Raises:
        UserFileNotFoundError: no such file.
        UserError: the file cannot be read safely, or a tensor is missing, unknown or of another shape.
    """
    state = read_weights(path)["model"]
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    _check_names(state, name, path, in_channels)
    loaded = {}
    by_feature_name = {_flatten(key): tensor for key, tensor in state.items()}
    wanted = net.state_dict()
    for key, tensor in wanted.items():
        found = by_feature_name.get(_flatten(key.removeprefix("model.")))
        if found is not None and found.shape == tensor.shape:
            loaded[key] = found
        elif not key.endswith(_COUNTER):
            raise UserError(
                f"MODEL.TIMM.CHECKPOINT {path} fits {name}, but timm changes its {key} when it is built with features; "
                "allowed: the weights of a network whose tensors timm leaves as they are"
            )
    net.load_state_dict(loaded, strict=False)
    count = sum(not key.endswith(_COUNTER) for key in loaded)
    dropped = sum(not key.endswith(_COUNTER) for key in state) - count
    rest = f", {dropped} tensors after the last feature left out" if dropped else ""
    return f"{path}: {count}/{count} tensors of timm's {name} loaded{rest}"


def _flatten(name: str) -> str:
    """A name without the difference between timm's networks with and without features (``stages.0``, ``stages_0``)."""
    return name.replace(".", "_")


def _check_names(state: Mapping[str, Tensor], name: str, path: str, in_channels: int) -> None:
    """Compares a file with the whole network, which is built without memory for its weights."""
    import timm  # optional, like everything that needs it

    with torch.device("meta"):
        whole: Any = timm.create_model(name, in_chans=in_channels)
    classifier = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    shapes = {key: tensor.shape for key, tensor in whole.state_dict().items() if not key.endswith(_COUNTER)}
    needed = [key for key in shapes if not key.startswith(heads)]
    missing = [f"{key} {tuple(shapes[key])}" for key in needed if key not in state]
    unknown = [
        f"{key} {tuple(tensor.shape)}"
        for key, tensor in state.items()
        if key not in shapes and not key.endswith(_COUNTER) and not key.startswith(heads)
    ]
    other = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(shapes[key])}"
        for key in needed
        if key in state and state[key].shape != shapes[key]
    ]
    sides = [_list(missing, "missing"), _list(unknown, "unknown"), _list(other, "of another shape")]
    if any(sides):
        fitting = len(needed) - len(missing) - len(other)
        raise UserError(
            f"MODEL.TIMM.CHECKPOINT {path} does not fit timm's {name}: {fitting}/{len(needed)} tensors fit; "
            f"{'; '.join(filter(None, sides))}; give timm's weights of that network, or change MODEL.TIMM.NAME"
        )


def _list(names: Sequence[str], what: str) -> str:
    listed = ", ".join([*names[:2], *(["..."] if len(names) > 2 else [])])
    return f"{len(names)} {what} ({listed})" if names else ""
