#!/usr/bin/env python
"""Trains and evaluates with detectron2's DefaultTrainer: a ClsNet, or a detector on one of our backbones."""

import argparse
from typing import Any

import imgcls  # noqa: F401  (first: it says how to install detectron2 where that is missing)

# isort: split
import torch
from detectron2.engine import default_argument_parser, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from imgcls.engine import Trainer, setup
from imgcls.errors import exit_on_user_error


def main(args: argparse.Namespace) -> Any:
    """One process of a run: set up, then evaluate or train."""
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(cfg: Any, resume: bool) -> Any:
    """Evaluates ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint."""
    model = Trainer.build_model(cfg)
    Trainer.build_checkpointer(cfg, model).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


if __name__ == "__main__":
    with exit_on_user_error():
        args = default_argument_parser().parse_args()
        # Without GPUs there is one process; setup() says so.
        gpus = args.num_gpus if torch.cuda.is_available() else 0
        launch(main, gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
