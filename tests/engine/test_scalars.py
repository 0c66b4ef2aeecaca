import re
import time

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from imgcls.engine.scalars import IterationScalars, Progress, Scalars, TrainingAccuracy
from imgcls.modeling.losses import SigmoidLoss, SoftmaxLoss


def add(scalars, iteration, a, b):
    losses = {"loss_a": torch.tensor(a), "loss_b": torch.tensor(b)}
    scalars.add(iteration, losses, {"train/top1": torch.tensor(10 * a, dtype=torch.float64)}, data_time=a / 8)


def test_values_are_stored_under_the_iteration_that_they_belong_to():
    scalars = Scalars()
    with EventStorage(5) as storage:
        add(scalars, 3, 0.1, 0.2)
        add(scalars, 4, 0.5, 1.0)
        rows = scalars.read(storage)
        assert storage.iter == 5
        assert scalars.read(storage) == []
    assert [row.iteration for row in rows] == [3, 4] and rows[1].loss == 1.5
    # What a float32 holds, not what was written down.
    assert rows[0].losses == {"loss_a": float(np.float32(0.1)), "loss_b": float(np.float32(0.2))}
    assert storage.history("total_loss").values() == [(rows[0].loss, 3), (1.5, 4)]
    assert storage.history("loss_b").values()[1] == (1.0, 4)
    assert storage.history("data_time").values() == [(0.0125, 3), (0.0625, 4)]
    hints = storage.smoothing_hints()
    assert hints["total_loss"] and not hints["train/top1"]


def test_a_single_loss_is_written_once():
    scalars = Scalars()
    with EventStorage() as storage:
        scalars.add(0, {"loss_cls": torch.tensor(2.0)}, {}, time=1.0)
        scalars.read(storage)
    assert set(storage.histories()) == {"total_loss", "time"}


def test_means_over_processes_and_the_slowest_of_them(monkeypatch):
    scalars, other = Scalars(), Scalars()
    add(scalars, 0, 1.0, 2.0)
    add(other, 0, 3.0, 6.0)
    with EventStorage() as storage:
        theirs = []
        monkeypatch.setattr(comm, "all_gather", lambda mine: theirs.append(mine) or [mine])
        other.read(storage)
        monkeypatch.setattr(comm, "all_gather", lambda mine: [mine, theirs[0]])
        (row,) = scalars.read(storage)
    assert row.losses == {"loss_a": 2.0, "loss_b": 4.0} and row.scalars == {"train/top1": 20.0}
    assert row.seconds == {"data_time": pytest.approx(0.375)}


def test_nothing_is_read_before_it_is_asked_for():
    """A number that is looked at makes the host wait for the device."""

    class Watched(torch.Tensor):
        def item(self):
            raise AssertionError("looked at")

        tolist = __float__ = __bool__ = item

    loss = torch.tensor(1.0).as_subclass(Watched)
    Scalars().add(0, {"loss_cls": loss}, {"train/top1": loss}, time=1.0)


def test_accuracy_is_over_all_batches_since_it_was_read():
    loss = SoftmaxLoss()
    accuracy = TrainingAccuracy(loss, (1, 2, 3, 5))
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    loss(logits, torch.tensor([0, 2]))  # first; second of two
    loss(logits, torch.tensor([0, 1]))
    assert accuracy.read() == {"train/top1": 75.0, "train/top2": 100.0}, "top-3 of three is always 100"
    assert accuracy.read() == {}


def test_there_is_none_of_several_labels():
    loss = SigmoidLoss()
    accuracy = TrainingAccuracy(loss, (1,))
    loss(torch.zeros(2, 3), torch.zeros(2, 3))
    assert accuracy.read() == {}


def test_it_keeps_no_graph():
    loss, linear = SoftmaxLoss(), nn.Linear(2, 2)
    accuracy = TrainingAccuracy(loss, (1,))
    loss(linear(torch.ones(1, 2)), torch.tensor([0])).backward()
    assert not accuracy._batches[0][0].requires_grad


def test_epochs_of_a_stream_that_does_not_divide():
    progress = Progress(num_images=10, batch_size=4, last=9)
    assert [progress.epoch(i) for i in range(6)] == [0, 0, 0, 1, 1, 2]
    assert [progress.epochs_done(i) for i in range(10)] == [0, 0, 1, 0, 2, 0, 0, 3, 0, 4]


def test_line_has_the_means_of_the_epoch():
    progress = Progress(num_images=8, batch_size=4, last=5)
    seconds = {"time": 0.5, "data_time": 0.25}
    rows = [
        IterationScalars(iteration, {"loss_cls": loss}, {"train/top1": 10 * loss}, seconds)
        for iteration, loss in enumerate([9.0, 9.0, 1.0, 2.0])
    ]
    progress.add(rows[:1])
    progress.add(rows[1:])
    line = progress.line(3)
    assert line == ("Epoch [1][2/2]  Time 0.500  Data 0.250  Loss 1.500  train/top1 15.000  8 images/s  left 0:00:01")


@pytest.mark.parametrize(("num_images", "batch_size"), [(13, 2), (12, 4), (7, 5), (1437, 64)])
def test_the_line_never_counts_beyond_the_epoch(num_images, batch_size):
    """`Epoch [2][7/6]` was printed where the batch does not divide the images."""
    progress = Progress(num_images, batch_size, last=200)
    counted = {}
    for iteration in range(200):
        progress.add([IterationScalars(iteration, {"loss": 1.0}, {}, {"time": 0.1, "data_time": 0.0})])
        epoch, number, size = map(int, re.match(r"Epoch \[(\d+)\]\[(\d+)/(\d+)\]", progress.line(iteration)).groups())
        assert 1 <= number <= size
        counted.setdefault(epoch, []).append(number)
    complete = [numbers for epoch, numbers in counted.items() if epoch < max(counted)]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in complete)


def test_the_wait_for_the_device_is_part_of_the_time():
    scalars = Scalars()
    for iteration in range(2):
        scalars.add(iteration, {"loss": torch.tensor(1.0)}, {}, time=0.1, data_time=0.0)
    with EventStorage() as storage:
        rows = scalars.read(storage, begin=time.perf_counter() - 4)
    assert [row.seconds["time"] for row in rows] == pytest.approx([2.1, 2.1], abs=0.5)
    assert [row.seconds["data_time"] for row in rows] == [0.0, 0.0]
