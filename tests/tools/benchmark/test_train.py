"""Comparison of the trainers, with a few iterations of each."""

import logging

from benchmark.compare import Budget
from benchmark.configs import train_loader
from benchmark.train import compare_trainers, request_times

from imgcls.data import ClsLoader


def test_both_trainers_are_compared_to_a_bare_loop(images):
    before = [logging.getLogger("detectron2").handlers[:], logging.getLogger("imgcls").level]
    table = compare_trainers(images, Budget(1), batch=4, warm_up=1, measured=2, size=32)
    assert list(table.values) == ["bare loop", "imgcls, train_net_builtin.py", "imgcls, train_net.py"]
    assert table.references == ["bare loop"]
    assert all(values[0] > 0 for values in table.values.values())
    assert [logging.getLogger("detectron2").handlers, logging.getLogger("imgcls").level] == before


def test_request_times_leave_the_batches_as_they_are(images):
    original = ClsLoader.__iter__
    loader = iter(train_loader(f"folder:{images}", 4, workers=0))
    expected = [next(loader)["file_name"] for _ in range(3)]
    with request_times() as times:
        batches = iter(train_loader(f"folder:{images}", 4, workers=0))
        for count in (1, 2, 3):
            assert next(batches)["file_name"] == expected[count - 1]
            assert len(times) == count
    assert times == sorted(times)
    assert ClsLoader.__iter__ is original
