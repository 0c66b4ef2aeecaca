#!/usr/bin/env python
"""Trains and evaluates with detectron2's DefaultTrainer: a ClsNet, or a detector on one of our backbones."""

import argparse
from typing import Any

import imgcls  # noqa: F401  (first: it says how to install detectron2 where that is missing)

# isort: split
from detectron2.engine import default_argument_parser

from imgcls.config import load_cfg
from imgcls.engine import Trainer, evaluate, setup
from imgcls.engine.launch import launch
from imgcls.errors import exit_on_user_error


def main(args: argparse.Namespace) -> Any:
    """One process of a run: set up, then evaluate or train."""
    with setup(args) as run:
        if args.eval_only:
            return evaluate(Trainer, run.cfg, run.datasets, args.resume)
        trainer = Trainer(run.cfg, run.datasets)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()


def run() -> None:
    """The command."""
    with exit_on_user_error():
        parser = default_argument_parser()
        parser.set_defaults(dist_url="auto")
        args = parser.parse_args()
        launch(
            main,
            args,
            device=load_cfg(args.config_file, args.opts).MODEL.DEVICE,
            processes=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
        )


if __name__ == "__main__":
    run()
