import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from imgcls.engine.scalars import Scalars


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
    assert row.losses == {"loss_a": 2.0, "loss_b": 4.0} and row.shown == {"train/top1": 20.0}
    assert row.seconds == {"data_time": pytest.approx(0.375)}


def test_nothing_is_read_before_it_is_asked_for():
    """A number that is looked at makes the host wait for the device."""

    class Watched(torch.Tensor):
        def item(self):
            raise AssertionError("looked at")

        tolist = __float__ = __bool__ = item

    loss = torch.tensor(1.0).as_subclass(Watched)
    Scalars().add(0, {"loss_cls": loss}, {"train/top1": loss}, time=1.0)
