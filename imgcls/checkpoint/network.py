"""What a config says of the backbone's network, kept beside its weights and compared where they are used again."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from detectron2.config import CfgNode

from imgcls.errors import UserError


class _Kind(NamedTuple):
    """Keys of ``MODEL.<node>`` that change the tensors, and those that change what the same tensors compute."""

    node: str
    shape: tuple[str, ...]
    function: tuple[str, ...]


# By what is in the name of the builder.
_KINDS = {
    "mnet": _Kind("MNET", ("WIDTH_MULT", "DEPTH_MULT", "BLOCKS"), ("ACTIVATION", "BN_EPS", "STEM_STRIDE")),
    "timm": _Kind("TIMM", (), ("NAME",)),
    "resnet": _Kind("RESNETS", ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS"), ("STRIDE_IN_1X1",)),
}
_SHAPE = {f"MODEL.{kind.node}.{key}" for kind in _KINDS.values() for key in kind.shape}


def build_network(cfg: CfgNode) -> dict[str, Any]:
    """What a config says of its network, by key; empty where the backbone is of no kind that is known."""
    return read_network(cfg.dump())


def read_network(text: str) -> dict[str, Any]:
    """The same from the YAML text of a config, which every checkpoint of ours carries."""
    model = (yaml.safe_load(text) or {}).get("MODEL", {})
    builder = model.get("BACKBONE", {}).get("NAME", "")
    kind = next((kind for part, kind in _KINDS.items() if part in builder), None)
    if not kind:
        return {}
    known = model.get(kind.node, {})
    network = {f"MODEL.{kind.node}.{key}": known[key] for key in (*kind.shape, *kind.function) if key in known}
    if kind.node == "TIMM" and network:  # behind the dot is only which weights timm would have loaded
        network["MODEL.TIMM.NAME"] = network["MODEL.TIMM.NAME"].partition(".")[0]
    return network


def check_network(saved: Mapping[str, Any], current: Mapping[str, Any], source: str) -> None:
    """Refuses a network in which tensors of the same shapes compute something else.

    Raises:
        ValueError: another activation, epsilon, stride, or network of timm; both sides and the config lines that
            mend it.
    """
    wrong = [key for key in _differences(saved, current) if key not in _SHAPE]
    if wrong:
        sides = "; ".join(f"{key} {saved[key]} there, {current[key]} in the config" for key in wrong)
        raise UserError(f"{source} is of another network: {sides}; to use it set {_lines(saved, wrong)}")


def advise(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Which keys to change when tensors have other names or shapes."""
    wrong = _differences(saved, current)
    if wrong:
        return f"to use it set {_lines(saved, wrong)}"
    return "check MODEL.BACKBONE.NAME, MODEL.MNET.WIDTH_MULT, DEPTH_MULT, BLOCKS and OUT_FEATURES"


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    return [key for key in saved if key in current and saved[key] != current[key]]


def _lines(saved: Mapping[str, Any], keys: list[str]) -> str:
    return " ".join(f'{key} "{saved[key]}"' for key in keys)
