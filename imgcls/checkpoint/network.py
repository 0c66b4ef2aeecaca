"""What a MobileNet's config says of its network, kept beside its weights and compared where they are used again."""

from collections.abc import Mapping
from typing import Any

import yaml
from detectron2.config import CfgNode

from imgcls.errors import UserError

# Keys of MODEL.MNET that change the tensors, and those that change what the same tensors compute.
_SHAPE = ("WIDTH_MULT", "DEPTH_MULT", "BLOCKS")
_FUNCTION = ("ACTIVATION", "BN_EPS", "STEM_STRIDE")


def build_network(cfg: CfgNode) -> dict[str, Any]:
    """``MODEL.MNET`` of a config; empty where the backbone is not a MobileNet of ours."""
    return read_network(cfg.dump())


def read_network(text: str) -> dict[str, Any]:
    """``MODEL.MNET`` in the YAML text of a config, which every checkpoint of ours carries."""
    model = (yaml.safe_load(text) or {}).get("MODEL", {})
    return model.get("MNET", {}) if "mnet" in model.get("BACKBONE", {}).get("NAME", "") else {}


def check_network(saved: Mapping[str, Any], current: Mapping[str, Any], source: str) -> None:
    """Refuses a network in which tensors of the same shapes compute something else.

    Raises:
        ValueError: another activation, epsilon or stem stride; both sides and the config lines that mend it.
    """
    wrong = _differences(saved, current, _FUNCTION)
    if wrong:
        sides = "; ".join(f"MODEL.MNET.{key} {saved[key]} there, {current[key]} in the config" for key in wrong)
        raise UserError(f"{source} is of another network: {sides}; to use it set {_lines(saved, wrong)}")


def advise(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Which keys to change when tensors have other names or shapes."""
    wrong = _differences(saved, current, _SHAPE)
    if wrong:
        return f"to use it set {_lines(saved, wrong)}"
    return "check MODEL.BACKBONE.NAME, MODEL.MNET.WIDTH_MULT, DEPTH_MULT, BLOCKS and OUT_FEATURES"


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if key in saved and key in current and saved[key] != current[key]]


def _lines(saved: Mapping[str, Any], keys: list[str]) -> str:
    return " ".join(f'MODEL.MNET.{key} "{saved[key]}"' for key in keys)
