import errno
import logging
import os

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imgcls.checkpoint import RunCheckpointer
from imgcls.checkpoint.files import read_checkpoint


class Run:
    """A model of two layers that has made ``steps`` steps, and everything else that a run has a state of."""

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


def test_the_file_is_what_detectron2s_own_checkpointer_writes(tmp_path):
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


def test_every_state_comes_back(tmp_path):
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


def test_untagged_files_are_not_what_a_run_goes_on_from(tmp_path):
    run = Run(tmp_path, keep=1)
    for iteration in (9, 19, 29):
        run.save(iteration)
    run.checkpointer.save("model_best", tag=False, iteration=19)
    assert names(tmp_path) == ["last_checkpoint", "model_0000029.pth", "model_best.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000029.pth"
    run.checkpointer.save("model_final", iteration=39)
    assert names(tmp_path) == ["last_checkpoint", "model_0000029.pth", "model_best.pth", "model_final.pth"]
    assert run.checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_other_processes_and_runs_without_a_folder_write_nothing(tmp_path):
    Run(tmp_path, save_to_disk=False).save(9)
    Run("").save(9)
    assert names(tmp_path) == [] and not os.path.exists("model_0000009.pth")


def test_what_a_killed_save_left_is_removed_before_the_next_needs_its_room(tmp_path, monkeypatch):
    left = tmp_path / f"model_0000009.pth.{2**22 + 1}.tmp"
    left.write_bytes(b"half")
    run = Run(tmp_path)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (left.exists() and pytest.fail("still there"), save(*args)))
    run.save(9)
    assert names(tmp_path) == ["last_checkpoint", "model_0000009.pth"]


@pytest.mark.parametrize("step", ["model_0000019.pth", "last_checkpoint"])
def test_a_save_that_fails_names_the_file_and_the_checkpoint_before_it(tmp_path, monkeypatch, step):
    run = Run(tmp_path)
    run.save(9)
    replace = os.replace

    def full(source, target):
        if target.endswith(step):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    message = rf"{step}: cannot be written \(No space left on device\); make room there; .*model_0000009\.pth, is still"
    with pytest.raises(ValueError, match=message):
        run.save(19)
    assert run.checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000009.pth")
    assert not [name for name in names(tmp_path) if name.endswith("tmp")]


def test_the_first_save_fails(tmp_path):
    with pytest.raises(ValueError, match=r"model_0000009\.pth: cannot be written .*there is no checkpoint before it"):
        Run(tmp_path / "gone").save(9)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    """Found when it is saved, and not by the user who resumes."""
    run = Run(tmp_path)
    run.save(9)
    with pytest.raises(TypeError, match=r"model_0000019\.pth could not be read again: .* holds Python objects"):
        run.checkpointer.save("model_0000019", iteration=19, hook=Run)
    assert names(tmp_path) == ["last_checkpoint", "model_0000009.pth"]


def test_damage_is_told_and_the_one_before_it_loaded(tmp_path, caplog):
    run = Run(tmp_path)
    for iteration in (9, 19):
        run.save(iteration)
    os.truncate(tmp_path / "model_0000019.pth", 500)
    assert Run(tmp_path).checkpointer.resume_or_load("", resume=True)["iteration"] == 9
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == ["imgcls.checkpoint.run"]


def test_a_folder_or_a_file_that_the_user_names(tmp_path):
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
    with pytest.raises(FileNotFoundError, match=r"empty/last_checkpoint is not there, nothing to resume"):
        other.resume_from(str(tmp_path / "empty"))


def test_killed_between_the_first_file_and_its_tag(tmp_path):
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
    RunCheckpointer(run.model, str(tmp_path)).resume_or_load("", resume=True)  # enough to evaluate


def test_an_average_and_a_scaler_may_start_in_the_middle_of_a_run(tmp_path, caplog):
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
