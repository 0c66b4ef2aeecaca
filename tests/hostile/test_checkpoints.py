"""Checkpoints and run folders that were damaged, forged or made by somebody else."""

import os

import pytest
import torch
from attack.cases import Case, run_case


def _predict(change):
    """``imgcls predict`` with a checkpoint whose entries ``change`` has changed, in place."""

    def make(folder, trained, images):
        checkpoint = torch.load(trained / "model_final.pth", weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, folder / "x.pth")
        return ["predict", "x.pth", str(images), "--workers", "0"]

    return make


class _Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def _add_pickle(checkpoint):
    checkpoint["evil"] = _Malicious()


CASES = [
    Case("untouched", _predict(lambda c: None), code=0),
    Case("a pickle that starts a program", _predict(_add_pickle), "can run code"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_checkpoint(case, tmp_path, trained, images):
    run_case(case, tmp_path, trained, images)
