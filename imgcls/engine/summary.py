"""The first lines of a training: data, network, schedule, device and output, and warnings about the data."""

import copy
import logging
from collections import Counter
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from imgcls.data.dataset import Dataset, Datasets, label_counts
from imgcls.data.split import parse_part

_FEW, _UNBALANCED = 5, 10
_logger = logging.getLogger(__name__)


def log_summary(cfg: CfgNode, datasets: Datasets, model: nn.Module, first: int = 0) -> None:
    """Logs what a classifier's training is about to do, on the main process.

    Args:
        cfg: of the run.
        datasets: of the run.
        model: the ``ClsNet``.
        first: the first iteration; not 0 in a resumed run.
    """
    if not comm.is_main_process():
        return
    for warning in data_warnings(cfg, datasets):
        _logger.warning(warning)
    _logger.info("\n%s", "\n".join(f"  {name:9} {text}" for name, text in describe_run(cfg, datasets, model, first)))


def describe_run(cfg: CfgNode, datasets: Datasets, model: nn.Module, first: int = 0) -> list[tuple[str, str]]:
    """What the run is about to do, as pairs of a title and a text of one line; arguments as for `log_summary`."""
    solver, clsnet = cfg.SOLVER, cfg.MODEL.CLSNET
    counts = _count(model, clsnet.INPUT_SIZE)
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / max(datasets.num_train_images, 1)
    schedule = (
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images, {epochs:.1f} epochs; "
        f"{solver.LR_SCHEDULER_NAME}, learning rate {solver.BASE_LR:g}"
    )
    if solver.HEAD_ONLY_EPOCHS:
        schedule += f"; only the head for {solver.HEAD_ONLY_EPOCHS} epochs"
    if solver.BACKBONE_MULTIPLIER != 1:
        schedule += f"; backbone at {solver.BACKBONE_MULTIPLIER:g} of it"
    processes = comm.get_world_size()
    device = f"{cfg.MODEL.DEVICE}, {processes} process{'es' if processes > 1 else ''}"
    return [
        ("data", _describe_data(datasets)),
        ("network", f"{cfg.MODEL.BACKBONE.NAME}, {clsnet.HEAD} head, {counts['parameters']:,} parameters, "
                    f"{counts['macs'] / 1e6:,.1f} million multiply-accumulates for an image of {clsnet.INPUT_SIZE} x "
                    f"{clsnet.INPUT_SIZE} pixels"),
        ("weights", f"resumed at iteration {first}" if first else _describe_weights(cfg)),
        ("schedule", schedule),
        ("device", f"{device} with {cfg.DATALOADER.NUM_WORKERS} loader workers each"),
        ("output", cfg.OUTPUT_DIR),
    ]  # fmt: skip


def _describe_data(datasets: Datasets) -> str:
    counts = _class_counts(datasets.train)
    names = datasets.classes
    text = f"{len(names)} classes, {datasets.num_train_images} training images"
    if counts:
        (largest, most), (smallest, least) = counts.most_common(1)[0], counts.most_common()[-1]
        text += f" (smallest class {names[smallest]}: {least}, largest {names[largest]}: {most})"
    for dataset in datasets.test:
        part = parse_part(dataset.name)
        kind = "held out for evaluation" if part and part.whole in map(_whole, datasets.train) else "test images"
        text += f", {len(dataset.records)} {kind}"
    return text


def _count(model: nn.Module, size: int) -> dict[str, int]:
    """Of a copy, so that neither the mode nor what is compiled changes in the network that is trained."""
    from imgcls.report.complexity import count_complexity

    return count_complexity(copy.deepcopy(getattr(model, "module", model)).cpu().eval(), size)


def _describe_weights(cfg: CfgNode) -> str:
    timm = cfg.MODEL.TIMM
    if cfg.MODEL.WEIGHTS:
        return str(cfg.MODEL.WEIGHTS)
    if "timm" in cfg.MODEL.BACKBONE.NAME and (timm.CHECKPOINT or timm.PRETRAINED):
        return timm.CHECKPOINT or f"timm's weights of {timm.NAME}"
    return "none: training from scratch (MODEL.WEIGHTS starts from other weights)"


def data_warnings(cfg: CfgNode, datasets: Datasets) -> list[str]:
    """Warnings, of one line each, about data that a classifier can hardly be trained or evaluated on."""
    names, counts = datasets.classes, _class_counts(datasets.train)
    by_size = sorted(range(len(names)), key=lambda label: counts[label])
    few = [label for label in by_size if counts[label] < _FEW]
    warnings = []
    if len(names) == 1 and cfg.MODEL.CLSNET.HEAD == "softmax":
        warnings.append(f"there is only one class, {names[0]}: every prediction will be right; add another class")
    if few:
        listed = ", ".join(f"{names[label]}: {counts[label]}" for label in few[:5])
        more = ", ..." if len(few) > 5 else ""
        warnings.append(f"{len(few)} of {len(names)} classes have fewer than {_FEW} training images ({listed}{more})")
    both = {dataset.name for dataset in datasets.train} & {dataset.name for dataset in datasets.test}
    if both:
        warnings.append(
            f"{sorted(both)[0]} is in DATASETS.TRAIN and DATASETS.TEST, so its metrics say nothing about other images; "
            "name another test set, or none with DATASETS.VAL_FRACTION 0.2"
        )
    if datasets.num_train_images < cfg.SOLVER.IMS_PER_BATCH:
        warnings.append(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is more than the {datasets.num_train_images} training "
            "images, so that a batch has some of them several times; lower it"
        )
    least, most = counts[by_size[0]], counts[by_size[-1]]
    if least and most / least >= _UNBALANCED:
        sigmoid = cfg.MODEL.CLSNET.HEAD == "sigmoid"
        key = 'MODEL.CLSNET.POS_WEIGHT "auto"' if sigmoid else "TEST.BEST_METRIC accuracy/balanced"
        helps = "weights rare classes more" if sigmoid else "selects the checkpoint that is best for all classes alike"
        if (cfg.MODEL.CLSNET.POS_WEIGHT is None) if sigmoid else (cfg.TEST.BEST_METRIC != "accuracy/balanced"):
            warnings.append(
                f"the classes are unbalanced: {names[by_size[-1]]} has {most} images and {names[by_size[0]]} {least}; "
                f"{key} {helps}"
            )
    return warnings


def _class_counts(datasets: Sequence[Dataset]) -> Counter[int]:
    return sum((label_counts(dataset.records) for dataset in datasets), Counter())


def _whole(dataset: Dataset) -> str:
    part = parse_part(dataset.name)
    return part.whole if part else dataset.name
