"""What changed in the config between a checkpoint and the run that goes on from it."""

from typing import Any

import yaml

from imgcls.errors import UserError

ABSENT = "(no such key)"  # of another version of imgcls or detectron2

# Where things are and how often they are written: nothing of what is computed depends on them.
_IGNORED = {
    "DATALOADER.NUM_WORKERS",
    "MODEL.CLSNET.ENABLE",
    "MODEL.DEVICE",
    "MODEL.TIMM.PRETRAINED",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.KEEP_CHECKPOINTS",
    "SOLVER.LOG_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "VERSION",
    "VIS_PERIOD",
}

# With another value the saved weights, or the optimizer's state, would mean something else though every shape fits.
_FIXED = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.BACKBONE.NAME",
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.MNET.ACTIVATION",
    "MODEL.MNET.BN_EPS",
    "MODEL.MNET.NORM",
    "MODEL.MNET.STEM_STRIDE",
    "MODEL.CLSNET.HEAD",
    "MODEL.CLSNET.IN_FEATURES",
)


def changed_keys(saved_cfg: str, current_cfg: str) -> dict[str, tuple[Any, Any]]:
    """The keys on which the result of a run depends and that differ between two configs.

    Args:
        saved_cfg: YAML text, as every checkpoint of ours has it.
        current_cfg: YAML text.

    Returns:
        Key to saved and current value, in the order of the alphabet; ``ABSENT`` where a side has no such key.
    """
    saved, current = _flatten(yaml.safe_load(saved_cfg)), _flatten(yaml.safe_load(current_cfg))
    pairs = {key: (saved.get(key, ABSENT), current.get(key, ABSENT)) for key in sorted(saved.keys() | current.keys())}
    return {key: pair for key, pair in pairs.items() if key not in _IGNORED and pair[0] != pair[1]}


def check_fixed(saved_cfg: str, current_cfg: str, source: str) -> None:
    """Refuses to go on from a checkpoint of another network, also where each of its tensors fits.

    Raises:
        ValueError: both sides and the config lines that mend it.
    """
    changed = changed_keys(saved_cfg, current_cfg)
    wrong = {key: changed[key] for key in _FIXED if key in changed and ABSENT not in changed[key]}
    if wrong:
        sides = "; ".join(f"{key} {old} there, {new} in the config" for key, (old, new) in wrong.items())
        lines = " ".join(f'{key} "{old}"' for key, (old, _) in wrong.items())
        raise UserError(f"--resume: {source} is of another network: {sides}; to go on from it set {lines}")


def _flatten(node: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node} if name else {}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flatten(value, f"{name}.{key}" if name else str(key))
    return flat
