#!/usr/bin/env python
"""Trains and evaluates a ClsNet in one plain PyTorch loop, with the flags of PyTorch's ImageNet example."""

import argparse
from typing import Any

import imgcls  # noqa: F401  (first: it says how to install detectron2 where that is missing)

# isort: split
from imgcls.cli.train_plain import parse_args
from imgcls.config import load_cfg
from imgcls.engine import PlainTrainer, Trainer, evaluate, setup
from imgcls.engine.launch import launch
from imgcls.errors import UserError, exit_on_user_error


def main(args: argparse.Namespace) -> Any:
    """One process of a run: set up, then evaluate or train."""
    with setup(args) as run:
        if args.pretrained and not run.cfg.MODEL.WEIGHTS:
            raise UserError("--pretrained, and MODEL.WEIGHTS is empty; set it to the checkpoint to start from")
        if args.eval_only:
            return evaluate(Trainer, run.cfg, run.datasets)
        trainer = PlainTrainer(run.cfg, run.datasets)
        trainer.load(args.resume, args.start_epoch)
        return trainer.train()


if __name__ == "__main__":
    with exit_on_user_error():
        args = parse_args()
        launch(
            main,
            args,
            device=load_cfg(args.config_file, args.opts).MODEL.DEVICE,
            processes=args.num_gpus,
            num_machines=args.world_size,
            machine_rank=args.rank,
            dist_url=args.dist_url,
            backend=args.dist_backend,
        )
