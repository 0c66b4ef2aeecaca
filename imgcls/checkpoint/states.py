"""The states of a run's parts in a checkpoint: all there, and loaded, or refused."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from imgcls.errors import UserError

# States that a run has only with an option switched on; it may be switched on in the middle of a run.
_OPTIONAL = ("ema", "grad_scaler")
_logger = logging.getLogger(__name__)


def require(checkpoint: Mapping[str, Any], keys: Iterable[str], source: str) -> None:
    """Refuses to go on from a checkpoint without one of these entries.

    Raises:
        ValueError: which are missing, and how to use the weights in it.
    """
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise UserError(
            f"--resume: {source} has no {', '.join(map(repr, missing))}: it is a backbone, exported or of another "
            f"project; to start from its weights leave --resume out and set MODEL.WEIGHTS {source}"
        )


def check_states(checkpoint: Mapping[str, Any], parts: Iterable[str], source: str) -> None:
    """Whether a checkpoint has the iteration and the state of every part; warns of one that was off till now.

    Raises:
        ValueError: as ``require``.
    """
    parts = list(parts)
    require(checkpoint, [*(name for name in parts if name not in _OPTIONAL), "iteration"], source)
    for name in parts:
        if name not in checkpoint:
            _logger.warning("%s has no %r, which was off when it was saved; it starts anew from here", source, name)


def load_states(checkpoint: dict[str, Any], parts: Mapping[str, Any], source: str) -> None:
    """Moves the states out of a checkpoint into the parts.

    Raises:
        ValueError: a state is of another kind or size.
    """
    for name, part in parts.items():
        if name in checkpoint:
            try:
                part.load_state_dict(checkpoint.pop(name))
            except (ValueError, KeyError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise UserError(
                    f"--resume: {name!r} of {source} does not fit this run ({reason}); set the config back to what it "
                    "was, or leave --resume out"
                ) from error
