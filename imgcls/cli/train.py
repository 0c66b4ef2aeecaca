"""``imgcls train``: detectron2's trainer, for a ``ClsNet`` or for a detector on one of our backbones."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from imgcls.errors import exit_on_user_error

_EXAMPLE = """\
example:
  imgcls train own_images.yaml DATASETS.TRAIN folder:images OUTPUT_DIR output/mine
  imgcls train --config-file ImageNet/mnetv1_050.yaml --num-gpus 8
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Trains or evaluates with detectron2's trainer."""
    with exit_on_user_error():
        args = parse_args(argv, prog)
        start(run_process, args)


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Parses the arguments of detectron2's ``default_argument_parser``, and those of ``add_common_flags``."""
    from detectron2.engine import default_argument_parser

    parser = default_argument_parser(epilog=_EXAMPLE)
    parser.description = "Trains or evaluates a classifier or detector with detectron2's trainer."
    parser.prog = prog or parser.prog
    parser.set_defaults(dist_url="auto")
    add_common_flags(parser)
    args = parser.parse_args(argv)
    take_config_file(args, args.opts)
    return args


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that both training commands have."""
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read MODEL.WEIGHTS even if it holds Python objects; reading them can run code in the file",
    )


def take_config_file(args: argparse.Namespace, opts: list[str]) -> None:
    """Moves a config that was given without its flag, as in ``imgcls train own_images.yaml``, from ``opts``."""
    if not args.config_file and opts and opts[0].endswith((".yaml", ".yml")):
        args.config_file = opts.pop(0)


def start(run: Callable[[argparse.Namespace], Any], args: argparse.Namespace, backend: str | None = None) -> Any:
    """Runs ``run(args)`` in every process that the arguments ask for, with ``args.config_file`` as a path.

    Args:
        run: a module-level function, because spawned processes import it.
        args: with ``config_file`` (a path or a name of the model zoo), ``opts``, ``num_gpus``, ``num_machines``,
            ``machine_rank`` and ``dist_url``.
        backend: see ``launch``.

    Raises:
        UserError: there is no such config, or ``opts`` does not fit it.
    """
    from imgcls.config import load_cfg
    from imgcls.engine.launch import launch
    from imgcls.model_zoo import find_config_file

    args.config_file = find_config_file(args.config_file)
    return launch(
        run,
        args,
        device=load_cfg(args.config_file, args.opts).MODEL.DEVICE,
        processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        backend=backend,
    )


def run_process(args: argparse.Namespace) -> Any:
    """Sets up one process of the run, then evaluates or trains."""
    from imgcls.engine import Trainer, evaluate, log_summary, setup

    with setup(args) as run:
        if args.eval_only:
            return evaluate(Trainer, run.cfg, run.datasets, args.resume, args.allow_pickle)
        trainer = Trainer(run.cfg, run.datasets, args.allow_pickle)
        trainer.resume_or_load(resume=args.resume)
        if run.datasets is not None:
            log_summary(run.cfg, run.datasets, trainer.model, trainer.start_iter)
        return trainer.train()
