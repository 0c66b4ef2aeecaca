"""Whole trainings in this process."""

import pytest

from imgcls.engine import Trainer


@pytest.fixture
def train():
    """``train(cfg, PlainTrainer, resume=True)``: a trainer that has run to its end."""

    def run(cfg, kind: type = Trainer, resume: bool = False):
        trainer = kind(cfg)
        if kind is Trainer:
            trainer.resume_or_load(resume)
        else:
            trainer.load(cfg.OUTPUT_DIR if resume else "")
        trainer.train()
        return trainer

    return run
