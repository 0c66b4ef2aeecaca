"""Evaluation of any classifier, a checkpoint or an exported file, with the evaluators and images of ``--eval-only``."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from imgcls.data.catalog import get_dataset
from imgcls.data.dataset import Dataset, check_labels
from imgcls.data.loader import ClsLoader, collate, init_worker
from imgcls.data.mapper import ClsDatasetMapper, MappedDataset
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.inference.classifier import ClassifierInfo
from imgcls.inference.predictor import Predictor


def read_labelled(name: str, info: ClassifierInfo) -> Dataset:
    """Reads a dataset by its name, and maps its labels to the classes of a classifier by their names.

    Raises:
        UserError: there is no such set, it has a class that the classifier lacks, or another kind of label.
    """
    dataset = get_dataset(name, info.classes)
    check_labels(dataset, len(info.classes), info.multi_label)
    return dataset


def build_loader(predictor: Predictor, records: Sequence[dict], batch_size: int, workers: int = 0) -> ClsLoader:
    """A loader of the images that the network gets, as in evaluation; a record that cannot be read is an error.

    Whole images differ in size, so that a network that resizes them gets one at a time.
    """
    info = predictor.info
    batch_size = 1 if info.resize_inside else batch_size
    mapper = ClsDatasetMapper(
        crop=predictor.crop,
        augment=nn.Identity(),
        image_format=info.contract["format"],
        num_classes=len(info.classes),
    )
    loader: DataLoader = DataLoader(
        MappedDataset(records, mapper),
        batch_size,
        num_workers=min(workers, -(-len(records) // batch_size)),
        collate_fn=collate,
        worker_init_fn=init_worker,
    )
    return ClsLoader(loader, batch_size)


def score(
    predictor: Predictor, dataset: Dataset, batch_size: int = 32, workers: int = 0, folder: str | None = None
) -> Mapping[str, Mapping[str, float]]:
    """Evaluates a classifier on a dataset.

    A checkpoint has the metrics of ``--eval-only``; with ``SOLVER.EMA_DECAY`` those of its averaged weights.

    Args:
        predictor: of a checkpoint or an exported file.
        dataset: from `read_labelled`.
        batch_size: images that go through the network together.
        workers: processes that decode images; 0 decodes in this one.
        folder: for the result files of the evaluator; None writes none.

    Returns:
        ``{task: {metric: 0 to 100}}``, see the evaluators.
    """
    evaluator = build_evaluator(predictor.info, folder)
    for batch in build_loader(predictor, dataset.records, batch_size, workers):
        scored = predictor.classifier.score(batch["image"], batch["label"])
        evaluator.process(batch, build_outputs(*scored, predictor.info))
    return evaluator.evaluate()


def build_evaluator(info: ClassifierInfo, folder: str | None = None) -> ImageNetEvaluator | MultiLabelEvaluator:
    """The evaluator of ``--eval-only`` for a classifier; it writes its result files into ``folder``, if given."""
    if info.multi_label:
        return MultiLabelEvaluator(info.classes, info.threshold, distributed=False, output_dir=folder)
    return ImageNetEvaluator(info.classes, info.topk, distributed=False, output_dir=folder)


def build_outputs(probabilities: Tensor, losses: Tensor, info: ClassifierInfo) -> list[dict[str, Any]]:
    """The predictions of a batch, as ``ClsNet`` returns them."""
    scores, classes = probabilities.topk(min(max(info.topk), len(info.classes)), dim=1)
    return [
        {"pred_classes": best, "scores": values, "probs": row, "loss": loss}
        for best, values, row, loss in zip(classes, scores, probabilities, losses, strict=True)
    ]
