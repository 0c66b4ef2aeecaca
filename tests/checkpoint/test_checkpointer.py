import errno
import logging
import os
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imgcls.checkpoint import RunCheckpointer
from imgcls.checkpoint.files import read_checkpoint
from imgcls.errors import UserError


class Run:
    """A model of two layers after ``steps`` steps, and all other parts of a run that have a state."""

    def __init__(self, folder, steps=0, keep=0, **more):
        torch.manual_seed(steps)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        for _ in range(steps):
            self.model(torch.randn(5, 3)).square().mean().backward()
            self.optimizer.step()
            self.ema.update_parameters(self.model)
        self.checkpointer = RunCheckpointer(self.model, str(folder), keep=keep, optimizer=self.optimizer, **more)

    def save(self, iteration):
        self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)


def flatten(node, name=""):
    if isinstance(node, dict):
        return {key: leaf for part in node for key, leaf in flatten(node[part], f"{name}.{part}").items()}
    return {name: node.tolist() if torch.is_tensor(node) else node}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_equals_that_of_detectron2s_checkpointer(tmp_path):
    for kind in (RunCheckpointer, DetectionCheckpointer):
        run = Run(tmp_path, steps=2)
        (tmp_path / kind.__name__).mkdir()
        kind(run.model, str(tmp_path / kind.__name__), optimizer=run.optimizer).save("model_0000001", iteration=1)
    ours, theirs = (
        torch.load(tmp_path / kind / "model_0000001.pth") for kind in ("RunCheckpointer", "DetectionCheckpointer")
    )
    assert list(ours) == list(theirs) and flatten(ours) == flatten(theirs)
    assert names(tmp_path / "RunCheckpointer") == names(tmp_path / "DetectionCheckpointer")
    assert DetectionCheckpointer(Run(tmp_path).model, str(tmp_path / "RunCheckpointer")).get_checkpoint_file() == str(
        tmp_path / "RunCheckpointer" / "model_0000001.pth"
    )


def test_every_state_is_restored(tmp_path):
    before = Run(tmp_path, steps=3)
    before.checkpointer.add_checkpointable("ema", before.ema)
    before.save(2)
    after = Run(tmp_path)
    after.checkpointer.add_checkpointable("ema", after.ema)
    rest = after.checkpointer.resume_or_load("", resume=True)
    assert rest == {"iteration": 2} and after.checkpointer.source == str(tmp_path / "model_0000002.pth")
    for part in ("model", "optimizer", "ema"):
        assert flatten(getattr(after, part).state_dict()) == flatten(getattr(before, part).state_dict()), part
    assert after.ema.n_averaged == 3


def test_without_resume_only_the_weights_are_loaded(tmp_path):
    Run(tmp_path, steps=3).save(2)
    after = Run(tmp_path)
    after.checkpointer.resume_or_load(str(tmp_path / "model_0000002.pth"), resume=False)
    assert not after.optimizer.state_dict()["state"] and after.model[1].num_batches_tracked == 3


def test_untagged_files_are_not_resumed_from(tmp_path):
    run = Run(tmp_path, keep=1)
    for iteration in (9, 19, 29):
        run.save(iteration)
    run.checkpointer.save("model_best", tag=False, iteration=19)
    assert names(tmp_path) == ["last_checkpoint", "model_0000029.pth", "model_best.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000029.pth"
    run.checkpointer.save("model_final", iteration=39)
    assert names(tmp_path) == ["last_checkpoint", "model_0000029.pth", "model_best.pth", "model_final.pth"]
    assert run.checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_other_ranks_and_runs_without_a_folder_write_nothing(tmp_path):
    Run(tmp_path, save_to_disk=False).save(9)
    Run("").save(9)
    assert names(tmp_path) == [] and not os.path.exists("model_0000009.pth")


def test_leftovers_of_a_killed_save_are_removed_before_the_next_save(tmp_path, monkeypatch):
    left = tmp_path / f".model_0000009.pth.{2**22 + 1}-0123abcd.tmp"
    left.write_bytes(b"half")
    run = Run(tmp_path)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (left.exists() and pytest.fail("still there"), save(*args)))
    run.save(9)
    assert names(tmp_path) == ["last_checkpoint", "model_0000009.pth"]


@pytest.mark.parametrize("step", ["model_0000019.pth", "last_checkpoint"])
def test_a_failed_save_names_the_file_and_the_earlier_checkpoint(tmp_path, monkeypatch, step):
    run = Run(tmp_path)
    run.save(9)
    replace = os.replace

    def full(source, target):
        if target.endswith(step):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    message = rf"{step}: cannot be written \(No space left on device\); make room there; .*model_0000009\.pth is intact"
    with pytest.raises(ValueError, match=message):
        run.save(19)
    assert run.checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000009.pth")
    assert not [name for name in names(tmp_path) if name.endswith("tmp")]


def test_the_first_save_fails(tmp_path):
    with pytest.raises(ValueError, match=r"model_0000009\.pth: cannot be written .*there is no earlier checkpoint"):
        Run(tmp_path / "gone").save(9)


def test_an_unreadable_checkpoint_is_not_written(tmp_path):
    """The error comes when it is saved, not when it is resumed from."""
    run = Run(tmp_path)
    run.save(9)
    with pytest.raises(TypeError, match=r"model_0000019\.pth could not be read again: .* holds Python objects"):
        run.checkpointer.save("model_0000019", iteration=19, hook=Run)
    assert names(tmp_path) == ["last_checkpoint", "model_0000009.pth"]


def test_damage_is_a_warning_and_the_checkpoint_before_it_is_loaded(tmp_path, caplog):
    run = Run(tmp_path)
    for iteration in (9, 19):
        run.save(iteration)
    os.truncate(tmp_path / "model_0000019.pth", 500)
    assert Run(tmp_path).checkpointer.resume_or_load("", resume=True)["iteration"] == 9
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == ["imgcls.checkpoint.run"]


def test_resuming_from_a_named_folder_or_file(tmp_path):
    for iteration in (9, 19, 29):
        Run(tmp_path).save(iteration)
    other = Run(tmp_path / "other").checkpointer
    assert other.resume_from(str(tmp_path))["iteration"] == 29
    assert other.resume_from(str(tmp_path / "model_0000019.pth"))["iteration"] == 19
    os.truncate(tmp_path / "model_0000019.pth", 500)
    assert other.resume_from(str(tmp_path / "model_0000019.pth"))["iteration"] == 9
    with pytest.raises(FileNotFoundError, match=r"--resume .*gone: no such checkpoint"):
        other.resume_from(str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no checkpoint, nothing to resume"):
        other.resume_from(str(tmp_path / "empty"))


def test_a_run_killed_between_its_first_checkpoint_and_the_tag(tmp_path):
    run = Run(tmp_path)
    assert not run.checkpointer.has_checkpoint()
    run.save(9)
    (tmp_path / "last_checkpoint").unlink()
    assert run.checkpointer.has_checkpoint()
    assert run.checkpointer.resume_or_load("", resume=True)["iteration"] == 9


@pytest.mark.parametrize(
    ("drop", "missing"),
    [
        (["optimizer"], "'optimizer'"),
        (["iteration"], "'iteration'"),
        (["optimizer", "iteration"], "'optimizer', 'iteration'"),
    ],
)
def test_weights_alone_cannot_be_resumed(tmp_path, drop, missing):
    run = Run(tmp_path, steps=1)
    run.save(9)
    path = tmp_path / "model_0000009.pth"
    torch.save({key: entry for key, entry in read_checkpoint(str(path)).items() if key not in drop}, path)
    before = flatten(run.model.state_dict())
    for resume in (
        lambda: run.checkpointer.resume_or_load("", resume=True),
        lambda: run.checkpointer.resume_from(str(path)),
    ):
        with pytest.raises(ValueError, match=rf"model_0000009\.pth has no {missing}: .*MODEL\.WEIGHTS "):
            resume()
    assert flatten(run.model.state_dict()) == before
    RunCheckpointer(run.model, str(tmp_path)).resume_or_load("", resume=True)  # weights are enough to evaluate


def test_ema_and_scaler_may_be_switched_on_in_the_middle_of_a_run(tmp_path, caplog):
    Run(tmp_path, steps=1).save(9)
    run = Run(tmp_path)
    for key, part in (("ema", run.ema), ("grad_scaler", torch.amp.GradScaler("cpu"))):
        run.checkpointer.add_checkpointable(key, part)
    assert run.checkpointer.resume_or_load("", resume=True) == {"iteration": 9}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["'ema'" in warned[0], "'grad_scaler'" in warned[1], len(warned)] == [True, True, 2]


def test_a_state_of_another_size_is_refused(tmp_path):
    Run(tmp_path, steps=1).save(9)
    run = Run(tmp_path)
    run.checkpointer.checkpointables["optimizer"] = torch.optim.SGD([run.model[0].weight], lr=0.1)
    with pytest.raises(
        ValueError, match=r"^--resume: 'optimizer' of .*model_0000009\.pth does not fit this run \(loaded"
    ):
        run.checkpointer.resume_or_load("", resume=True)


def test_resuming_without_a_checkpoint_starts_a_new_run(tmp_path, caplog):
    Run(tmp_path, steps=3).save(2)
    weights = str(tmp_path / "model_0000002.pth")
    run = Run(tmp_path / "new")
    with caplog.at_level(logging.INFO, logger="imgcls"):
        rest = run.checkpointer.resume_or_load(weights, resume=True)
    assert "iteration" not in rest and run.model[1].num_batches_tracked == 3 and not run.optimizer.state_dict()["state"]
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("imgcls"))
    assert line == f"--resume: no checkpoint in {tmp_path / 'new'}; starting a new run from the weights of {weights}"
    assert Run(tmp_path / "new").checkpointer.resume_or_load("", resume=True) == {}


def test_a_missing_tagged_checkpoint_is_an_error(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names .*model_0000009\.pth, which does not exist"):
        Run(tmp_path).checkpointer.resume_or_load("", resume=True)


def test_evaluation_without_a_checkpoint_to_resume_is_an_error(tmp_path):
    """It would score random or other weights."""
    with pytest.raises(FileNotFoundError, match=r"^--resume: .* has no checkpoint, nothing to resume; set OUTPUT_DIR"):
        RunCheckpointer(Run("").model, str(tmp_path)).resume_or_load("", resume=True)


def test_whether_a_run_is_resumed_in_its_own_folder(tmp_path):
    Run(tmp_path, steps=1).save(9)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other" / "linked.pth").symlink_to(tmp_path / "model_0000009.pth")
    own, linked, other = (Run(tmp_path / name).checkpointer for name in ("", "link", "other"))
    own.load(str(tmp_path / "model_0000009.pth"), checkpointables=[])
    assert not own.resumed_in_place  # weights alone
    own.resume_or_load("", resume=True)
    linked.resume_from(str(tmp_path / "model_0000009.pth"))
    other.resume_from(str(tmp_path))
    assert (own.resumed_in_place, linked.resumed_in_place, other.resumed_in_place) == (True, True, False)
    other.resume_from(str(tmp_path / "other" / "linked.pth"))
    assert not other.resumed_in_place


@pytest.mark.parametrize("path", ["x.pkl", "a://y.pkl", "http://host/x.pkl", "x.pkl?matching_heuristics=True", "y.pth"])
def test_no_path_leads_to_a_pickle_that_runs(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"model": {}, "__author__": "x", "run": RunsCode()}, protocol=2)
    (tmp_path / "a:").mkdir()
    for name in ("x.pkl", "a:/y.pkl", "y.pth"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"pickle|truncated or not a checkpoint|Python objects"):
        Run(tmp_path).checkpointer.load(path)
    assert not os.path.exists("ran")


class RunsCode:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_pickle_of_detectron2s_model_zoo_is_read_with_the_flag(tmp_path):
    run = Run(tmp_path, allow_pickle=True)
    state = {key: tensor.numpy() + 1 for key, tensor in run.model.state_dict().items()}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    run.checkpointer.load(str(path))
    assert all((run.model.state_dict()[key].numpy() == value).all() for key, value in state.items())


@pytest.mark.parametrize("wrap", [lambda blobs: blobs, lambda blobs: {"blobs": blobs, "cfg": ""}])
def test_a_pickle_of_caffe2_is_read_with_the_flag(tmp_path, wrap):
    model = nn.ModuleDict(
        {"backbone": nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3, bias=False)})})}
    )
    weight = torch.randn(4, 3, 3, 3).numpy()
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(wrap({"conv1_w": weight, "conv1_w_momentum": weight})))
    RunCheckpointer(model, "", allow_pickle=True).load(str(tmp_path / "R.pkl"))
    assert (model["backbone"]["stem"]["conv1"].weight.detach().numpy() == weight).all()


def test_names_are_matched_by_detectron2s_heuristics_on_request(tmp_path):
    run, path = Run(tmp_path), str(tmp_path / "bare.pth")
    torch.save({"0.weight": torch.ones(4, 3)}, path)
    model = nn.ModuleDict({"backbone": run.model})
    RunCheckpointer(model, "").load(path)
    assert (run.model[0].weight != 1).all()
    RunCheckpointer(model, "").load(f"{path}?matching_heuristics=True")
    assert (run.model[0].weight == 1).all()


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^MODEL\.WEIGHTS .*gone\.pth: no such checkpoint$"):
        Run(tmp_path).checkpointer.load(str(tmp_path / "gone.pth"))


def test_averaged_weights_of_a_foreign_file_are_loaded_with_a_warning(tmp_path, caplog):
    raw, averaged = (Run(tmp_path, steps=steps).model.state_dict() for steps in (1, 2))
    torch.save({"state_dict": raw, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "timm.pth")
    run = Run(tmp_path)
    assert run.checkpointer.load(str(tmp_path / "timm.pth"))["epoch"] == 3
    assert flatten(run.model.state_dict()) == flatten(averaged)
    assert "using the averaged weights, 'state_dict_ema' and not 'state_dict'" in caplog.text
