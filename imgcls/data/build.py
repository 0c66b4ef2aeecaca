"""Loaders from a config."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Sampler

from imgcls.errors import UserError

from .dataset_mapper import ClsDatasetMapper
from .datasets import StoredRecords, get_dataset, get_datasets
from .datasets.shards import ShardRecords
from .loader import ClsLoader, collate, init_worker
from .mapped import MappedRecords
from .samplers import TrainingSampler
from .shard_sampler import ShardSampler


def build_train_loader(cfg: CfgNode) -> ClsLoader:
    """An endless loader over ``DATASETS.TRAIN``; ``SOLVER.IMS_PER_BATCH`` pictures an iteration over all processes."""
    datasets, _ = get_datasets(cfg.DATASETS.TRAIN, ())
    records = _chain([dataset.records for dataset in datasets])
    parts = comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS
    if cfg.SOLVER.IMS_PER_BATCH % parts:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH} on {comm.get_world_size()} processes with "
            f"SOLVER.ACCUM_STEPS {cfg.SOLVER.ACCUM_STEPS}; allowed: a multiple of {parts}"
        )
    # All ranks must agree on the seed of the order; a negative SEED means a new one every run.
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    samples = MappedRecords(
        records,
        ClsDatasetMapper(cfg, is_train=True),
        seed,
        on_bad="next" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    sampler = _build_sampler([dataset.records for dataset in datasets], seed)
    return ClsLoader(_build_loader(cfg, samples, sampler, True), cfg.SOLVER.IMS_PER_BATCH, _device(cfg))


def build_test_loader(cfg: CfgNode, dataset_name: str) -> ClsLoader:
    """Every picture of one set once, over all processes, in the training set's classes."""
    train = cfg.DATASETS.TRAIN[0]
    classes = MetadataCatalog.get(train).get("classes") or get_dataset(train).classes
    samples = MappedRecords(
        _chain([get_dataset(dataset_name, classes).records]),
        ClsDatasetMapper(cfg, is_train=False),
        on_bad="drop" if cfg.DATALOADER.BAD_IMAGES == "skip" else "error",
    )
    return ClsLoader(_build_loader(cfg, samples, InferenceSampler(len(samples)), False), cfg.SOLVER.IMS_PER_BATCH)


def _build_sampler(parts: Sequence[Sequence[dict]], seed: int) -> TrainingSampler:
    ranks = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    if all(isinstance(part, ShardRecords) for part in parts):
        return ShardSampler([size for part in parts for size in part.shard_sizes.tolist()], seed, **ranks)
    return TrainingSampler(sum(map(len, parts)), seed, **ranks)


def _chain(parts: Sequence[Sequence[dict]]) -> Sequence[dict]:
    """The records of several sets in a row, in a form that workers share instead of copying it."""
    shared = [part if isinstance(part, StoredRecords) else DatasetFromList(part, copy=False) for part in parts]
    return shared[0] if len(shared) == 1 else ConcatDataset(shared)


def _device(cfg: CfgNode) -> torch.device:
    device = torch.device(cfg.MODEL.DEVICE)
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device


def _build_loader(cfg: CfgNode, samples: MappedRecords, sampler: Sampler, drop_last: bool) -> DataLoader:
    at_once = max(1, cfg.SOLVER.IMS_PER_BATCH // (comm.get_world_size() * cfg.SOLVER.ACCUM_STEPS))
    return DataLoader(
        samples,
        batch_sampler=BatchSampler(sampler, at_once, drop_last),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=collate,
        worker_init_fn=init_worker,
        pin_memory=torch.cuda.is_available(),
    )
