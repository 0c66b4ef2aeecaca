"""The whole loader, with real workers and few images."""

import sys

import pytest
from benchmark import loader as module
from benchmark.loader import race_loader, soak_loader


def test_two_workers_beside_twice_one_core(images, monkeypatch):
    monkeypatch.setattr(module, "BATCHES", 2)
    table = race_loader(images, rounds=1, batch=2)
    assert list(table.values) == ["imgcls, one core x 2", "imgcls, 2 workers", "torchvision reference, 2 workers"]
    assert table.references == ["imgcls, one core x 2"]
    assert all(values[0] > 0 for values in table.values.values())


def test_twice_one_core_is_half_its_time(images, monkeypatch):
    monkeypatch.setattr(module, "_time", lambda loader, ahead=0: 4.0)
    table = race_loader(images, rounds=1, batch=2)
    assert table.values["imgcls, one core x 2"] == [2 * table.values["imgcls, 2 workers"][0]]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_a_soak_counts_files_and_memory_of_all_processes(images):
    told = soak_loader(images, batches=10, batch=2)
    assert told["soak, batches"] == 10
    for when in ("early", "late"):
        assert told[f"soak, processes, {when}"] == 3
        assert told[f"soak, open files, {when}"] > 3
        assert told[f"soak, PSS in MB, {when}"] > 50
