"""What the user states about weights of another project, where the file cannot say it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from imgcls.config.check import ACTIVATIONS, FORMATS
from imgcls.errors import UserError

# The argument of `imgcls convert` for each field, and its values.
FLAGS: Mapping[str, str] = MappingProxyType(
    {"pixel_format": "--format", "pixel_mean": "--mean", "pixel_std": "--std", "activation": "--activation"}
)
_VALUES = {
    "pixel_format": "|".join(FORMATS),
    "pixel_mean": "A B C",
    "pixel_std": "A B C",
    "activation": "|".join(ACTIVATIONS),
}


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user says about a file; None where nothing is said.

    Attributes:
        pixel_format: channel order of the images that the network was trained on, ``"RGB"`` or ``"BGR"``.
        pixel_mean: 0-255, in that order.
        pixel_std: 0-255, in that order.
        activation: of all convolutions, a value of ``MODEL.MNET.ACTIVATION``.

    Raises:
        UserError: a value is not allowed, or means or deviations are on the scale from 0 to 1.
    """

    pixel_format: str | None = None
    pixel_mean: Sequence[float] | None = None
    pixel_std: Sequence[float] | None = None
    activation: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("pixel_format", FORMATS), ("activation", ACTIVATIONS)):
            if (value := getattr(self, name)) not in (None, *allowed):
                raise UserError(f"{FLAGS[name]} is {value!r}; allowed: {', '.join(allowed)}")
        mean, std = self.pixel_mean, self.pixel_std
        if mean is not None:
            self._check("--mean", mean, "0 to 255", lambda value: 0 <= value <= 255)
            # All zeros belong to pixels of which nothing is subtracted.
            _check_scale("--mean", mean, any(mean) and max(mean) <= 1)
        if std is not None:
            self._check("--std", std, "above 0 to 255", lambda value: 0 < value <= 255)
            # All ones belong to pixels that are not divided.
            _check_scale("--std", std, min(std) < 1)

    @staticmethod
    def _check(flag: str, values: Sequence[float], allowed: str, test: Any) -> None:
        if len(values) != 3 or not all(math.isfinite(value) and test(value) for value in values):
            raise UserError(f"{flag} is {list(values)}; allowed: three numbers, {allowed}, in the order of --format")

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        fields = {name: getattr(self, name) for name in FLAGS if getattr(self, name) is not None}
        return {name: value if isinstance(value, str) else list(map(float, value)) for name, value in fields.items()}


def _check_scale(flag: str, values: Sequence[float], is_fraction: bool) -> None:
    if is_fraction:
        scaled = " ".join(f"{255 * value:g}" for value in values)
        raise UserError(
            f"{flag} is {list(values)}, for pixels from 0 to 1; allowed: for pixels from 0 to 255: {scaled}"
        )


def list_flags(names: Sequence[str]) -> str:
    """The arguments that state some fields, for example ``--format BGR|RGB --mean A B C``."""
    return " ".join(f"{FLAGS[name]} {_VALUES[name]}" for name in names)
