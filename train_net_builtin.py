#!/usr/bin/env python
"""Trains and evaluates with detectron2's DefaultTrainer: a ClsNet, or a detector on one of our backbones."""

import argparse
from typing import Any

import imgcls  # noqa: F401  (first: it says how to install detectron2 where that is missing)

# isort: split
import torch
from detectron2.engine import default_argument_parser, launch

from imgcls.engine import Trainer, evaluate, setup
from imgcls.errors import UserError, exit_on_user_error


def main(args: argparse.Namespace) -> Any:
    """One process of a run: set up, then evaluate or train."""
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    with exit_on_user_error():
        args = default_argument_parser().parse_args()
        here = torch.cuda.device_count()
        if 0 < here < args.num_gpus:
            raise UserError(f"--num-gpus is {args.num_gpus}; this machine has {here}")
        # Without a GPU there is one process; setup() says so.
        launch(main, min(args.num_gpus, here), args.num_machines, args.machine_rank, args.dist_url, args=(args,))
