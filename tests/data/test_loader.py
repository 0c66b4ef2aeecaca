import logging
import multiprocessing
import signal
import subprocess
import sys
from itertools import islice

import pytest
import torch
from detectron2.data import MetadataCatalog

from imgcls.data import build_test_loader, build_train_loader


def drawn(loader, count):
    """The first batches' ids and pixels."""
    return [(batch["image_id"], batch["image"]) for batch in islice(iter(loader), count)]


def assert_same(one, other):
    assert [ids for ids, _ in one] == [ids for ids, _ in other]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True))


def test_training_batches_are_stacked(tiny_cfg):
    batch = next(iter(build_train_loader(tiny_cfg)))
    assert batch["image"].shape == (4, 3, 32, 32) and batch["image"].dtype == torch.uint8
    assert batch["label"].shape == (4,) and batch["label"].dtype == torch.int64
    assert len(batch["image_id"]) == len(batch["file_name"]) == 4 and "bad_images" not in batch


def test_labels_are_those_of_the_files(tiny_cfg):
    for batch in islice(iter(build_train_loader(tiny_cfg)), 4):
        for file_name, label, pixels in zip(batch["file_name"], batch["label"], batch["image"], strict=True):
            name = ["blue", "green", "red"][label]
            assert f"/{name}/" in file_name
            # conftest paints class i bright in RGB channel i; the default order here is BGR
            assert pixels.float().mean((1, 2)).argmax() == 2 - label


def test_pixels_do_not_depend_on_the_number_of_workers(tiny_cfg):
    none = drawn(build_train_loader(tiny_cfg), 5)
    tiny_cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(none, drawn(build_train_loader(tiny_cfg), 5))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_loader_gives_what_comes_next(tiny_cfg, workers):
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    resumed = build_train_loader(tiny_cfg)
    resumed.start_at(4)
    assert_same(drawn(resumed, 3), drawn(build_train_loader(tiny_cfg), 7)[4:])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_evaluation_gives_every_image_once(tiny_cfg, batch_size):
    tiny_cfg.SOLVER.IMS_PER_BATCH = batch_size
    loader = build_test_loader(tiny_cfg, tiny_cfg.DATASETS.TEST[0])
    ids = [image_id for batch in loader for image_id in batch["image_id"]]
    assert len(ids) == len(set(ids)) == 5 and len(loader) == -(-5 // batch_size)


def test_evaluation_uses_the_classes_of_training(tiny_cfg, tmp_path, write_folder):
    """The 2020 project counted a validation folder's classes anew: one missing class shifted all labels."""
    test = write_folder(tmp_path / "fewer", {"green": 1, "red": 1})
    loader = build_test_loader(tiny_cfg, f"folder:{test}")
    assert next(iter(loader))["label"].tolist() == [1, 2]
    assert MetadataCatalog.get(f"folder:{test}").classes == ["blue", "green", "red"]


def test_several_training_sets_are_joined(tiny_cfg):
    tiny_cfg.DATASETS.TRAIN = (*tiny_cfg.DATASETS.TRAIN, *tiny_cfg.DATASETS.TEST)
    names = {name for batch in islice(iter(build_train_loader(tiny_cfg)), 5) for name in batch["file_name"]}
    assert len(names) == 17


@pytest.fixture
def two_bad(tiny_cfg, tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder / "green" / "0.png").write_bytes(b"")
        cut = tmp_path / folder / "red" / "0.png"
        cut.write_bytes(cut.read_bytes()[:100])
    return tiny_cfg


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_by_default_and_is_named(two_bad, workers):
    two_bad.DATALOADER.NUM_WORKERS = workers
    with pytest.raises(ValueError, match=r"(green|red)/0\.png: .*DATALOADER\.BAD_IMAGES"):
        drawn(build_train_loader(two_bad), 6)
    with pytest.raises(ValueError, match=r"0\.png"):
        drawn(build_test_loader(two_bad, two_bad.DATASETS.TEST[0]), 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_replaces_bad_images_logs_each_once_and_counts(two_bad, workers, caplog):
    two_bad.DATALOADER.NUM_WORKERS, two_bad.DATALOADER.BAD_IMAGES = workers, "skip"
    loader = build_train_loader(two_bad)
    with caplog.at_level(logging.WARNING, "imgcls.data.loader"):
        batches = list(islice(iter(loader), 9))
    assert all(len(batch["image"]) == 4 for batch in batches)
    assert not any("green/0.png" in name for batch in batches for name in batch["file_name"])
    assert len(loader.bad_images) == len(caplog.records) == 2
    assert "bad image number 2" in caplog.records[1].getMessage()


def test_skip_leaves_bad_images_out_of_evaluation(two_bad):
    two_bad.DATALOADER.BAD_IMAGES, two_bad.SOLVER.IMS_PER_BATCH = "skip", 1
    ids = [i for batch in build_test_loader(two_bad, two_bad.DATASETS.TEST[0]) for i in batch["image_id"]]
    assert sorted(ids) == ["blue/0.png", "blue/1.png", "green/1.png"]


def test_batch_size_must_divide_by_the_processes(tiny_cfg, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 4 on 3 processes .*; allowed: a multiple of 3"):
        build_train_loader(tiny_cfg)
    tiny_cfg.SOLVER.IMS_PER_BATCH, tiny_cfg.SOLVER.ACCUM_STEPS = 15, 2
    with pytest.raises(ValueError, match=r"with SOLVER\.ACCUM_STEPS 2; allowed: a multiple of 6"):
        build_train_loader(tiny_cfg)


def test_a_worker_ends_by_its_parents_signal_only(tiny_cfg):
    """A scheduler signals all processes of a run; the trainer needs its workers to come to a checkpoint."""
    tiny_cfg.DATALOADER.NUM_WORKERS = 2
    batches = iter(build_train_loader(tiny_cfg))
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    send = "import os, sys; [os.kill(int(pid), int(sys.argv[1])) for pid in sys.argv[2:]]"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        command = [sys.executable, "-c", send, str(int(number)), *(str(worker.pid) for worker in workers)]
        subprocess.run(command, check=True)
    for _ in range(20):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    workers[0].terminate()
    workers[0].join(timeout=10)
    assert not workers[0].is_alive()
