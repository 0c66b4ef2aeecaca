import torch
from torch import nn

from imgcls.engine.scalars import Progress, Row, TrainingAccuracy
from imgcls.modeling.losses import SigmoidLoss, SoftmaxLoss


def test_accuracy_is_over_all_batches_since_it_was_read():
    loss = SoftmaxLoss()
    accuracy = TrainingAccuracy(loss, (1, 2, 5))
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    loss(logits, torch.tensor([0, 2]))  # first; second of two
    loss(logits, torch.tensor([0, 1]))
    assert accuracy.read() == {"train/top1": 75.0, "train/top2": 100.0}, "there is no top-5 of three classes"
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
    assert [i for i in range(10) if progress.epoch_ends(i)] == [2, 4, 7, 9]


def test_line_has_the_means_of_the_epoch():
    progress = Progress(num_images=8, batch_size=4, last=5)
    seconds = {"time": 0.5, "data_time": 0.25}
    rows = [
        Row(iteration, {"loss_cls": loss}, {"train/top1": 10 * loss}, seconds)
        for iteration, loss in enumerate([9.0, 9.0, 1.0, 2.0])
    ]
    progress.add(rows[:1])
    progress.add(rows[1:])
    line = progress.line(3)
    assert line == ("Epoch [1][2/2]  Time 0.500  Data 0.250  Loss 1.500  train/top1 15.000  8 images/s  left 0:00:01")
