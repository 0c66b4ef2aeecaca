"""Training images as the network sees them: cropped and augmented."""

from dataclasses import dataclass, field

import numpy as np
from detectron2.config import CfgNode

from imgcls.data.catalog import read_datasets
from imgcls.data.dataset import Dataset, Datasets, labels_of
from imgcls.data.mapper import ClsDatasetMapper, MappedDataset
from imgcls.errors import UserError
from imgcls.report.gallery import to_data_uri

SHOWN = 16


@dataclass
class TrainingImages:
    """Examples of the training set.

    Attributes:
        images: data URI and class names of each.
        reason: why there are none.
        counts: images of each training set, by its name.
    """

    images: list[tuple[str, list[str]]] = field(default_factory=list)
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)


def read_run_data(cfg: CfgNode) -> Datasets:
    """Reads the data of a finished run.

    Raises:
        UserError: it has been moved, or cannot be read.
    """
    try:
        return read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    except UserError:
        raise
    except Exception as error:  # a function that the user registered may raise anything
        raise UserError(f"DATASETS.TRAIN cannot be read: {type(error).__name__}: {error}") from error


def build_training_images(cfg: CfgNode, datasets: Datasets) -> TrainingImages:
    """Draws images of all training sets, the same ones and the same augmentations each time.

    Args:
        cfg: of the run.
        datasets: of the run.
    """
    counts = {dataset.name: len(dataset.records) for dataset in datasets.train}
    places = [(dataset, i) for dataset in datasets.train for i in _choose(dataset, datasets.num_train_images)]
    mapper = ClsDatasetMapper(cfg, is_train=True)
    images = []
    try:
        for position, (dataset, index) in enumerate(places[:SHOWN]):
            sample = MappedDataset(dataset.records, mapper, seed=0, on_bad="next")[position, index]
            pixels = sample["image"].permute(1, 2, 0).numpy()
            rgb = pixels if cfg.INPUT.FORMAT == "RGB" else pixels[:, :, ::-1]
            names = [dataset.classes[label] for label in labels_of(sample)]
            images.append((to_data_uri(np.ascontiguousarray(rgb)), names))
    except UserError as error:
        return TrainingImages(reason=str(error), counts=counts)
    return TrainingImages(images, counts=counts)


def _choose(dataset: Dataset, total: int) -> list[int]:
    """This set's share of the images, spread over the set."""
    size = len(dataset.records)
    share = min(size, max(1, round(SHOWN * size / max(total, 1))))
    return sorted(np.random.default_rng(0).choice(size, share, replace=False).tolist()) if size else []
