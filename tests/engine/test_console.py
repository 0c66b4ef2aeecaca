import logging
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.logger import setup_logger

from imgcls.engine import console
from imgcls.engine.console import DETAIL, FILE_ONLY, ConsoleFilter, TrainingConsole, filter_console
from imgcls.engine.run_state import BestTracker
from imgcls.engine.scalars import IterationScalars, Progress


def record(name, text, level=logging.INFO, **extra):
    made = logging.LogRecord(name, level, "", 0, text, (), None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("what", "brief", "terminal", "shown"),
    [
        (record("imgcls.engine.setup", "config", **FILE_ONLY), False, False, False),
        (record("detectron2.engine.defaults", "Model:\nClsNet()"), False, False, False),
        (record("detectron2.engine.defaults", "something else"), True, True, True),
        (record("imgcls.engine.resolve", "NUM_CLASSES", **DETAIL), True, False, False),
        (record("imgcls.engine.resolve", "NUM_CLASSES", **DETAIL), False, False, True),
        (record("detectron2.evaluation.testing", "copypaste: 1.0"), True, False, False),
        (record("detectron2.evaluation.testing", "copypaste: 1.0"), False, False, True),
        (record("detectron2.evaluation.testing", "copypaste: nan", logging.WARNING), True, True, True),
        (record("detectron2.utils.events", "iter: 3"), True, False, True),
        (record("detectron2.utils.events", "iter: 3"), True, True, False),
        (record("detectron2.utils.events", "iter: 3"), False, True, True),
        (record("imgcls.engine.console", "epoch 1/3"), True, True, True),
    ],
)
def test_the_console_leaves_out_details_and_never_a_warning(what, brief, terminal, shown):
    assert ConsoleFilter(brief, terminal).filter(what) == shown


def test_log_txt_has_everything(tmp_path, capsys):
    logger = setup_logger(str(tmp_path), name="imgcls")
    for _ in range(2):  # as for a second run in one process
        filter_console(brief=True)
    logger.info("a detail", extra=FILE_ONLY)
    logger.info("a result")
    shown, written = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert "a result" in shown and "a detail" not in shown
    assert "a result" in written and "a detail" in written
    assert sum(len(handler.filters) for handler in logger.handlers) == 1


def rows(*iterations):
    seconds = {"time": 0.5, "data_time": 0.1}
    return [IterationScalars(i, {"loss_cls": 2.0 - 0.1 * i}, {}, seconds) for i in iterations]


def test_one_line_for_each_evaluation(caplog):
    caplog.set_level(logging.INFO)
    shown = TrainingConsole(Progress(num_images=8, batch_size=4, last=5), first=0)
    best = BestTracker()
    for iteration, top1 in ((1, 80.0), (3, 75.0)):
        shown.read(rows(iteration - 1, iteration))
        results = {"accuracy/top1": top1, "accuracy/loss": 0.5}
        best.update(results, iteration)
        shown.evaluated(iteration, results, best)
    assert [r.getMessage() for r in caplog.records] == [
        "epoch 1/3: loss 1.9500, validation loss 0.5000, accuracy/top1 80.00 (best so far), 8 images/s, 0:00:02 left",
        "epoch 2/3: loss 1.7500, validation loss 0.5000, accuracy/top1 75.00 (best 80.00 in epoch 1), 8 images/s, "
        "0:00:01 left",
    ]


def test_an_evaluation_before_the_first_iteration_of_a_resumed_run_has_no_loss(caplog):
    caplog.set_level(logging.INFO)
    best = BestTracker()
    best.update({"accuracy/top1": 50.0}, 3)
    TrainingConsole(Progress(8, 4, 5), first=4).evaluated(3, {"accuracy/top1": 50.0}, best)
    assert caplog.messages == ["epoch 2/3: accuracy/top1 50.00 (best so far)"]


def test_a_progress_bar_on_a_terminal_only(monkeypatch, capfd):
    made = []

    class Bar:
        def __init__(self, **options):
            self.options, self.count, self.text, self.calls = options, 0, [], []
            made.append(self)

        def update(self):
            self.count += 1

        def set_description(self, text, refresh):
            self.text.append(text)

        def set_postfix_str(self, text):
            self.text.append(text)

        def clear(self):
            self.calls.append("clear")

        def close(self):
            self.calls.append("close")

    monkeypatch.setattr(console, "tqdm", Bar)
    progress = Progress(num_images=8, batch_size=4, last=5)
    TrainingConsole(progress, 0).advance()
    assert not made, "pytest's output is not a terminal"
    terminal = SimpleNamespace(isatty=lambda: True, write=lambda text: None, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", terminal)
    logging.getLogger("imgcls").addHandler(logging.StreamHandler(terminal))
    filter_console(brief=True)
    shown = TrainingConsole(progress, first=2)
    shown.advance()
    shown.read(rows(2))
    logging.getLogger("imgcls").warning("in between")
    shown.close()
    (bar,) = made
    assert (bar.options["total"], bar.options["initial"], bar.count) == (6, 2, 1)
    assert bar.text == ["epoch 2/3", "loss 1.800, 8 images/s"] and bar.calls == ["clear", "close"]
    logging.getLogger("imgcls").warning("afterwards")
    assert bar.calls == ["clear", "close"]
