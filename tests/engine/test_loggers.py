"""Experiment trackers: what arrives there, offline, and that no failure of theirs costs any training."""

import importlib.util
import json
import random
import shutil
import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imgcls.config import check_cfg
from imgcls.engine import PlainTrainer, Trainer, loggers, resolve_from_data
from imgcls.errors import UserError


@pytest.fixture
def cfg(tiny_cfg, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tiny_cfg.OUTPUT_DIR}/mlflow.db")
    tiny_cfg.SOLVER.LOG_PERIOD = 1
    resolve_from_data(tiny_cfg)
    return tiny_cfg


def read_lines(folder: str) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in Path(folder, "metrics.json").read_text().splitlines()]
    return {line.pop("iteration"): line for line in lines}


def read_wandb(folder: str) -> list:
    """The records of all offline runs in a folder, whose files are LevelDB logs of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = []
    for path in sorted(Path(folder, "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        data, at, part = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            left = 32768 - at % 32768
            if left < 7:
                at += left
                continue
            _, size, kind = struct.unpack("<IHB", data[at : at + 7])
            part += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # complete, or the last part
                records.append(Record.FromString(part))
                part = b""
    return records


def wandb_rows(records: list) -> dict[int, dict[str, float]]:
    rows = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows[record.history.step.num] = {name: value for name, value in row.items() if not name.startswith("_")}
    return rows


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
def test_mlflow_gets_config_and_every_scalar_and_a_resumed_run_continues(cfg, kind, require, train):
    require("mlflow")
    from mlflow import MlflowClient

    cfg.OUTPUT.LOGGERS = ("mlflow",)
    train(cfg, kind)
    cfg.SOLVER.MAX_ITER = 5
    train(cfg, kind, resume=True)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("imgcls").experiment_id])
    assert run.info.run_id == json.loads(Path(cfg.OUTPUT_DIR, "loggers.json").read_text())["mlflow"]
    assert run.info.status == "FINISHED" and run.info.run_name == "output"
    assert run.data.params["MODEL.MNET.WIDTH_MULT"] == "0.25"
    lines = read_lines(cfg.OUTPUT_DIR)
    assert set(lines) == {0, 1, 2, 3, 4} and "accuracy/top1" in lines[4]
    for name in ("total_loss", "lr", "accuracy/top1", "accuracy/loss"):
        logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert logged == pytest.approx({i: line[name] for i, line in lines.items() if name in line}), name


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
def test_wandb_gets_config_and_every_scalar_and_a_resumed_run_continues(cfg, kind, require, train):
    require("wandb")
    cfg.OUTPUT.LOGGERS = ("wandb",)
    train(cfg, kind)
    cfg.SOLVER.MAX_ITER = 5
    train(cfg, kind, resume=True)
    records = read_wandb(cfg.OUTPUT_DIR)
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {json.loads(Path(cfg.OUTPUT_DIR, "loggers.json").read_text())["wandb"]}
    config = {update.key: json.loads(update.value_json) for run in runs for update in run.config.update}
    assert config["MODEL"]["MNET"]["WIDTH_MULT"] == 0.25
    exits = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert exits == [0, 0]
    machines = [record.environment for record in records if record.WhichOneof("record_type") == "environment"]
    told = {field.name for machine in machines for field, _ in machine.ListFields()}
    assert not told & {"host", "username", "email", "args", "program", "executable", "git_repo", "code_path"}, told
    assert not list(Path(cfg.OUTPUT_DIR, "wandb").rglob("requirements.txt"))
    rows, lines = wandb_rows(records), read_lines(cfg.OUTPUT_DIR)
    assert rows.keys() == lines.keys()
    for iteration, line in lines.items():
        assert rows[iteration] == pytest.approx(line), iteration


def test_weights_and_random_numbers_are_those_of_a_run_without_trackers(cfg, require, tmp_path, train):
    require("wandb"), require("mlflow")
    states = []
    for number, names in enumerate([(), ("wandb", "mlflow")]):
        cfg.OUTPUT.LOGGERS, cfg.OUTPUT_DIR = names, str(tmp_path / f"run{number}")
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        model = train(cfg).model
        generators = [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]
        states.append((generators, [value.tolist() for value in model.state_dict().values()]))
    assert states[0] == states[1]


class Fake:
    """A tracker that keeps what it gets, and raises in one of its methods."""

    def __init__(self, fails_in: str = "", wait: threading.Event | None = None):
        self.fails_in, self.wait = fails_in, wait
        self.calls: list = []

    def _call(self, name: str, *args):
        self.calls.append((name, *args))
        if self.wait is not None:
            self.wait.wait(20)
        if name == self.fails_in:
            raise ConnectionError("no\nroute")

    def start(self, run_id):
        self._call("start", run_id)
        return "run7", "somewhere"

    def log(self, scalars, iteration):
        self._call("log", iteration)

    def finish(self, completed):
        self._call("finish", completed)


@pytest.fixture
def use(cfg, monkeypatch):
    """``use(fake)``: makes it the tracker ``"mlflow"`` of the config."""

    def use(fake: Fake) -> None:
        cfg.OUTPUT.LOGGERS = ("mlflow",)
        monkeypatch.setattr(loggers, "MlflowTracker", lambda cfg: fake)
        monkeypatch.setattr(loggers, "check_loggers", lambda cfg: None)

    return use


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
@pytest.mark.parametrize("fails_in", ["start", "log", "finish"])
def test_a_tracker_that_fails_costs_one_line_and_no_training(cfg, use, kind, fails_in, caplog, train):
    fake = Fake(fails_in)
    use(fake)
    assert train(cfg, kind).run_state.first == 0
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").exists() and len(read_lines(cfg.OUTPUT_DIR)) == 3
    warnings = [record.getMessage() for record in caplog.records if "OUTPUT.LOGGERS" in record.getMessage()]
    assert warnings == ["OUTPUT.LOGGERS mlflow: ConnectionError: no route; the training continues without it"]
    assert [name for name, *_ in fake.calls].count(fails_in) == 1, "it is not called again"


def test_a_tracker_that_hangs_is_left_behind(cfg, use, caplog, monkeypatch, train):
    monkeypatch.setattr(loggers, "_START_SECONDS", 0.1)
    monkeypatch.setattr(loggers, "_END_SECONDS", 0.1)
    released = threading.Event()
    use(Fake(wait=released))
    train(cfg)
    assert any("OUTPUT.LOGGERS mlflow: not finished after 0 seconds" in message for message in caplog.messages)
    released.set()


def test_a_run_that_fails_ends_as_not_completed_and_only_a_resumed_one_gets_its_id(cfg, use, monkeypatch, train):
    use(fake := Fake())
    trainer = Trainer(cfg)
    monkeypatch.setattr(trainer, "run_step", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert fake.calls == [("start", ""), ("finish", False)]
    use(fake := Fake())
    train(cfg, resume=True)
    assert fake.calls[0] == ("start", ""), "there was no checkpoint, so this run is a new one"
    assert fake.calls[1:] == [("log", 0), ("log", 1), ("log", 2), ("finish", True)]
    cfg.SOLVER.MAX_ITER = 4
    use(fake := Fake())
    train(cfg, resume=True)
    assert fake.calls == [("start", "run7"), ("log", 3), ("finish", True)]


def test_a_detector_has_trackers_too(cfg, use):
    use(Fake())
    trainer = object.__new__(Trainer)  # building a whole detector would add nothing
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    trainer.cfg, trainer.max_iter, trainer.datasets = cfg, 3, None
    trainer.run_state = SimpleNamespace(resumed=False)
    (writer,) = [writer for writer in trainer.build_writers() if isinstance(writer, loggers.TrackerWriter)]
    writer.close()
    assert writer.tracker.calls == [("start", ""), ("finish", True)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_folder_that_vanishes_costs_at_most_one_line(cfg, name, require, caplog, monkeypatch, tmp_path):
    require(name)
    store = tmp_path / "output" / ("wandb" if name == "wandb" else "store")
    if name == "mlflow":
        store.mkdir(parents=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    cfg.OUTPUT.LOGGERS = (name,)
    trainer = Trainer(cfg)
    step = trainer.run_step
    monkeypatch.setattr(trainer, "run_step", lambda: (shutil.rmtree(store, ignore_errors=True), step()))
    trainer.train()
    warnings = [message for message in caplog.messages if "OUTPUT.LOGGERS" in message]
    assert len(warnings) == (1 if name == "mlflow" else 0), "W&B does not notice"
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").exists() and len(read_lines(cfg.OUTPUT_DIR)) == 3


def test_mlflow_without_a_store_costs_one_line(cfg, require, caplog, monkeypatch, train):
    require("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:/proc/nothing/here")
    cfg.OUTPUT.LOGGERS = ("mlflow",)
    train(cfg)
    (warning,) = [message for message in caplog.messages if "OUTPUT.LOGGERS" in message]
    assert "\n" not in warning and warning.endswith("the training continues without it")
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").exists()


@pytest.mark.parametrize("names", [("wandb", "comet"), ("wandb", "wandb")])
def test_unknown_and_repeated_names_are_refused(cfg, names):
    cfg.OUTPUT.LOGGERS = names
    with pytest.raises(UserError, match=r"OUTPUT.LOGGERS is .*; allowed: \(\) or names out of \['wandb', 'mlflow'\]"):
        check_cfg(cfg)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_refused_before_the_training(cfg, name, monkeypatch, tmp_path, train):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    cfg.OUTPUT.LOGGERS = (name,)
    with pytest.raises(UserError, match=rf'OUTPUT.LOGGERS has .{name}., .*: pip install -e "\.\[{name}\]"'):
        train(cfg)
    assert not list(tmp_path.glob("output/model*"))


def test_a_folder_named_like_the_library_is_no_library(cfg, monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    for module in [module for module in sys.modules if module.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    cfg.OUTPUT.LOGGERS = ("wandb",)
    with pytest.raises(UserError, match="library is missing"):
        loggers.check_loggers(cfg)
