"""What of a backbone checkpoint is in a backbone: a comparison tensor by tensor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from imgcls.errors import UserError

from .backbone_file import drop_counters

# A name up to the stage: "stages.mob5", "res5", "net.blocks.4", "net.model.blocks.4", "net.layer4".
_STAGE = re.compile(r"(net\.)?(model\.)?((stages|blocks|features)\.)?[^.]+")


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors, each in one list.

    Attributes:
        source: the file.
        loaded: in both and the same.
        missing: the model has it and the file has not.
        unexpected: the file has it and the model has not.
        mismatched: in both and different, with what differs.
        left_out: of later stages, which the model does not build and does not need.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all of the model's backbone came from the file, and nothing of the file found no place."""
        return bool(self.loaded) and not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """``135/135 backbone tensors loaded``, of those that the model has."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        stages = sorted({_stage(name) for name in self.left_out})
        note = f" ({', '.join(stages)} of the file left out: the model does not build it)" if stages else ""
        return f"{len(self.loaded)}/{total} backbone tensors loaded{note}"

    def problems(self) -> list[str]:
        """One line for each tensor that did not fit."""
        return [
            *self.mismatched,
            *(f"{name} is missing in the file" for name in self.missing),
            *(f"{name} is not in the model" for name in self.unexpected),
        ]


class HandoffError(UserError):
    """A backbone checkpoint that does not fit; ``report`` says which tensors."""

    def __init__(self, message: str, report: LoadReport):
        super().__init__(message)
        self.report = report


def compare(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str, values: bool) -> LoadReport:
    """Compares a backbone with the tensors of a file by name and shape, and with ``values`` bit by bit."""
    state = backbone.state_dict()
    names = drop_counters(state)
    built = {_stage(name) for name in names}
    report = LoadReport(source, missing=[name for name in names if name not in tensors])
    for name in drop_counters(tensors):
        if name not in state:
            (report.unexpected if _stage(name) in built else report.left_out).append(name)
        elif tensors[name].shape != state[name].shape:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(state[name].shape)} in the model"
            report.mismatched.append(f"{name} is {shapes}")
        elif values and not torch.equal(tensors[name], state[name].cpu()):
            report.mismatched.append(f"{name} has other values in the model than in the file")
        else:
            report.loaded.append(name)
    return report


def _stage(name: str) -> str:
    return _STAGE.match(name)[0]
