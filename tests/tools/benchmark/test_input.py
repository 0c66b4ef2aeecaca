"""The race of input pipelines, with few images."""

import cv2
import numpy as np
import torch
from benchmark import input as module
from benchmark.input import one_thread, our_pipeline, race_input
from benchmark.packed import packed_images

NAMES = [
    "imgcls",
    "imgcls, packed",
    "torchvision reference",
    "torchvision v2, decode_jpeg",
    "detectron2 DatasetMapper",
    "timm create_loader",
]


def test_all_candidates_are_compared_to_torchvisions_reference(images):
    with packed_images(images) as packed:
        table = race_input(images, rounds=2, batch=3, packed=packed)
    assert list(table.values) == NAMES
    assert table.references == ["torchvision reference"]
    assert all(len(values) == 2 and min(values) > 0 for values in table.values.values())


def test_ours_is_what_a_worker_of_our_loader_makes(images):
    pipeline = our_pipeline("imgcls", f"folder:{images}", 4)
    batch = pipeline.collate([pipeline.dataset[pipeline.keys((7, i))] for i in (0, 5)])
    assert batch["image"].shape == (2, 3, 224, 224) and batch["image"].dtype is torch.uint8
    assert batch["label"].tolist() == [0, 2]
    again = pipeline.collate([pipeline.dataset[pipeline.keys((8, i))] for i in (0, 5)])
    assert not torch.equal(batch["image"], again["image"])  # another position, another crop


def test_packed_images_are_the_same_ones_smaller(images):
    with packed_images(images) as name:
        packed = our_pipeline("packed", name, 4)
        assert len(packed.dataset) == 16
        labels = sorted(packed.dataset[(0, i)]["label"] for i in range(16))
        assert np.array_equal(labels, np.repeat(np.arange(8), 2))


def test_more_images_than_are_measured_are_not_packed(images, monkeypatch):
    monkeypatch.setattr("benchmark.packed._MOST", 15)
    with packed_images(images) as name:
        assert name is None
    assert list(race_input(images, rounds=1, batch=1, packed=name).values) == [NAMES[0], *NAMES[2:]]


def test_every_candidate_reads_the_same_images(images, monkeypatch):
    seen = {}
    real = module.DataLoader

    def spy(dataset, batch_sampler, collate_fn):
        batches = iter(batch_sampler)
        keys = [key for _ in range(4) for key in next(batches)]
        seen[len(seen)] = [key[1] if isinstance(key, tuple) else key for key in keys]
        return real(dataset, batch_sampler=batch_sampler, collate_fn=collate_fn)

    monkeypatch.setattr(module, "DataLoader", spy)
    race_input(images, rounds=1, batch=4)
    assert len(seen) == 5 and all(order == seen[0] for order in seen.values())
    assert sorted(seen[0]) == list(range(16))


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads = cv2.getNumThreads()
    try:
        with one_thread():
            assert torch.get_num_threads() == 1 and cv2.getNumThreads() <= 1
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, threads)
    finally:
        torch.set_num_threads(before)
