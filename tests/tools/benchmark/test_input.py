"""Comparison of input pipelines and of whole loaders, with few images."""

import sys

import cv2
import numpy as np
import pytest
import torch
from benchmark import input as module
from benchmark.compare import Budget
from benchmark.input import compare_input, compare_loaders, one_thread, our_pipeline, soak_loader
from benchmark.sample_images import packed_images

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
        table = compare_input(images, budget=Budget(2), batch=3, packed=packed)
    assert list(table.values) == NAMES
    assert table.references == ["torchvision reference"]
    assert all(len(values) == 2 and min(values) > 0 for values in table.values.values())


def test_ours_is_what_a_worker_of_our_loader_runs(images):
    pipeline = our_pipeline("imgcls", f"folder:{images}", 4)
    batch = pipeline.collate([pipeline.dataset[pipeline.keys((7, i))] for i in (0, 5)])
    assert batch["image"].shape == (2, 3, 224, 224) and batch["image"].dtype is torch.uint8
    assert batch["label"].tolist() == [0, 2]
    again = pipeline.collate([pipeline.dataset[pipeline.keys((8, i))] for i in (0, 5)])
    assert not torch.equal(batch["image"], again["image"])  # another position, another crop


def test_the_packed_copy_has_the_same_images(images):
    with packed_images(images) as name:
        packed = our_pipeline("packed", name, 4)
        assert len(packed.dataset) == 16
        labels = sorted(packed.dataset[(0, i)]["label"] for i in range(16))
        assert np.array_equal(labels, np.repeat(np.arange(8), 2))


def test_a_large_folder_is_not_packed(images, monkeypatch):
    monkeypatch.setattr("benchmark.sample_images._MOST_PACKED", 15)
    with packed_images(images) as name:
        assert name is None
    assert list(compare_input(images, budget=Budget(1), batch=1, packed=name).values) == [NAMES[0], *NAMES[2:]]


def test_every_candidate_reads_the_same_images(images, monkeypatch):
    seen = {}
    real = module.DataLoader

    def spy(dataset, batch_sampler, collate_fn):
        batches = iter(batch_sampler)
        keys = [key for _ in range(4) for key in next(batches)]
        seen[len(seen)] = [key[1] if isinstance(key, tuple) else key for key in keys]
        return real(dataset, batch_sampler=batch_sampler, collate_fn=collate_fn)

    monkeypatch.setattr(module, "DataLoader", spy)
    compare_input(images, budget=Budget(1), batch=4)
    assert len(seen) == 5 and all(order == seen[0] for order in seen.values())
    assert sorted(seen[0]) == list(range(16))


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads = cv2.getNumThreads()
    try:
        with one_thread():
            assert torch.get_num_threads() == 1 and cv2.getNumThreads() <= 1
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, threads)
    finally:
        torch.set_num_threads(before)


def test_two_workers_are_compared_to_twice_one_core(images, monkeypatch):
    monkeypatch.setattr(module, "LOADER_BATCHES", 2)
    table = compare_loaders(images, budget=Budget(1), batch=2)
    assert list(table.values) == ["imgcls, one core x 2", "imgcls, 2 workers", "torchvision reference, 2 workers"]
    assert table.references == ["imgcls, one core x 2"]
    assert all(values[0] > 0 for values in table.values.values())


def test_twice_one_core_is_half_its_time(images, monkeypatch):
    monkeypatch.setattr(module, "_time", lambda loader, prefetched=0: 4.0)
    table = compare_loaders(images, budget=Budget(1), batch=2)
    assert table.values["imgcls, one core x 2"] == [2 * table.values["imgcls, 2 workers"][0]]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_soak_counts_files_and_memory_of_all_processes(images):
    facts = soak_loader(images, batches=10, batch=2)
    assert facts["soak, batches"] == 10
    for when in ("early", "late"):
        assert facts[f"soak, processes, {when}"] == 3
        assert facts[f"soak, open files, {when}"] > 3
        assert facts[f"soak, PSS in MB, {when}"] > 50
