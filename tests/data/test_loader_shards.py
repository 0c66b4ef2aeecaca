"""Packed data in both loaders."""

import shutil
from itertools import islice

import pytest
import torch
from detectron2.utils import comm

from imgcls.data import build_test_loader, build_train_loader
from imgcls.data.catalog import read_datasets
from imgcls.data.sampler import ShardSampler, TrainingSampler
from imgcls.data.shards.pack import pack_dataset
from imgcls.errors import UserError


@pytest.fixture(scope="module")
def packed(tmp_path_factory, write_folder):
    """24 and 5 images in shards of two."""
    root = tmp_path_factory.mktemp("packed")
    write_folder(root / "train", {"blue": 8, "green": 8, "red": 8})
    write_folder(root / "test", {"blue": 2, "green": 2, "red": 1})
    for name in ("train", "test"):
        pack_dataset(f"folder:{root / name}", str(root / name / ".packed"), shard_size=2 * 6144)
    return root


@pytest.fixture
def cfg(tiny_cfg, tmp_path, packed):
    """Its data are a copy, which a test may damage."""
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    tiny_cfg.DATASETS.TRAIN = (f"shards:{tmp_path}/train/.packed",)
    tiny_cfg.DATASETS.TEST = (f"shards:{tmp_path}/test/.packed",)
    tiny_cfg.SOLVER.IMS_PER_BATCH = 6
    return tiny_cfg


def train_loader(cfg):
    return build_train_loader(cfg, read_datasets(cfg.DATASETS.TRAIN, ()).train)


def evaluation_loader(cfg, number=0):
    return build_test_loader(cfg, read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST).test[number])


def on_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def drawn(loader, batches):
    return [
        (image_id, label.item(), pixels)
        for batch in islice(iter(loader), batches)
        for image_id, label, pixels in zip(batch["image_id"], batch["label"], batch["image"], strict=True)
    ]


def assert_same(one, other):
    assert [sample[:2] for sample in one] == [sample[:2] for sample in other]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_has_every_sample_once_over_all_ranks_and_workers(cfg, monkeypatch, world_size, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    seen = []
    for rank in range(world_size):
        on_rank(monkeypatch, rank, world_size)
        seen.append([sample[:2] for sample in drawn(train_loader(cfg), 8)])
    half = len(seen[0]) // 2
    for epoch in (0, 1):
        together = [sample for rank in seen for sample in rank[epoch * half : (epoch + 1) * half]]
        assert sorted(together) == sorted(
            (f"{name}/{i}.png", label) for label, name in enumerate(("blue", "green", "red")) for i in range(8)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("iteration", [1, 4, 6])
def test_a_resumed_loader_continues_the_stream(cfg, workers, iteration):
    whole = drawn(train_loader(cfg), 10)
    cfg.DATALOADER.NUM_WORKERS = workers
    resumed = train_loader(cfg)
    resumed.start_at(iteration)
    assert_same(drawn(resumed, 10 - iteration), whole[6 * iteration :])


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_of_shards_equals_that_of_the_files(cfg, tmp_path, monkeypatch, batch_size, world_size):
    """Small PNG files are stored unchanged."""
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    cfg.DATASETS.TEST = (*cfg.DATASETS.TEST, f"folder:{tmp_path / 'test'}")
    packed, originals = [], []
    for rank in range(world_size):
        on_rank(monkeypatch, rank, world_size)
        packed += drawn(evaluation_loader(cfg), None)
        originals += drawn(evaluation_loader(cfg, 1), None)
    assert len(packed) == 5
    assert_same(sorted(packed, key=lambda s: s[0]), sorted(originals, key=lambda s: s[0]))


def sampler(cfg, *train):
    cfg.DATASETS.TRAIN = train
    return train_loader(cfg).loader.batch_sampler.sampler


def test_the_sampler_depends_on_the_kind_of_set(cfg, tmp_path):
    train, test, folder = cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0], f"folder:{tmp_path / 'train'}"
    assert type(sampler(cfg, train)) is ShardSampler
    both = sampler(cfg, train, test)
    assert type(both) is ShardSampler and both.size == sum(both.shard_sizes) == 29
    assert type(sampler(cfg, folder)) is TrainingSampler


def test_shards_keep_windowed_reading_beside_image_files(cfg, tmp_path):
    train, test, folder = cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0], f"folder:{tmp_path / 'train'}"
    mixed = sampler(cfg, train, folder, test)
    assert type(mixed) is ShardSampler
    assert mixed.shard_sizes.tolist() == [*sampler(cfg, train).shard_sizes, *[2] * 12, *sampler(cfg, test).shard_sizes]
    cfg.DATASETS.TRAIN = (train, folder, test)
    cfg.SOLVER.IMS_PER_BATCH = 1
    names = [name for batch in islice(iter(train_loader(cfg)), 53) for name in batch["file_name"]]
    assert len(set(names)) == 53


def test_several_packed_sets_are_joined(cfg):
    cfg.DATASETS.TRAIN = cfg.DATASETS.TRAIN + cfg.DATASETS.TEST
    loader = train_loader(cfg)
    names = [name for batch in islice(iter(loader), 29) for name in batch["file_name"]]
    assert all(names.count(name) == 6 for name in set(names)) and len(set(names)) == 29


def damage(cfg, which):
    """Changes the first image of the first shard of a set."""
    path = getattr(cfg.DATASETS, which)[0].removeprefix("shards:") + "/000000.tar"
    with open(path, "r+b") as file:
        file.seek(700)
        byte = file.read(1)[0]
        file.seek(700)
        file.write(bytes([byte ^ 1]))
    return path


def test_a_damaged_image_is_an_error_by_default(cfg):
    for which in ("TRAIN", "TEST"):
        damage(cfg, which)
    with pytest.raises(UserError, match=r"000000\.tar/000000-000000\.png: its checksum .*DATALOADER\.BAD_IMAGES"):
        drawn(train_loader(cfg), 4)
    with pytest.raises(UserError, match=r"000000\.tar/000000-000000\.png: its checksum"):
        drawn(evaluation_loader(cfg), None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_can_be_skipped(cfg, workers):
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.BAD_IMAGES = workers, "skip"
    bad = {damage(cfg, which) + "/000000-000000.png" for which in ("TRAIN", "TEST")}
    train, test = train_loader(cfg), evaluation_loader(cfg)
    names = [name for batch in islice(iter(train), 4) for name in batch["file_name"]]
    assert len(names) == 24 and len(set(names)) == 23 and not bad & set(names)
    names = [name for batch in test for name in batch["file_name"]]
    assert len(names) == len(set(names)) == 4 and not bad & set(names)
    assert len(train.bad_images) == len(test.bad_images) == 1
