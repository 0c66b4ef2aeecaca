"""A classifier's run that goes on from its checkpoint, or is told why it cannot."""

import logging

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import ClsCheckpointer, build_info, read_checkpoint
from imgcls.data import get_dataset


@pytest.fixture
def run(tiny_cfg):
    """``run(KEY, value, ...)``: the checkpointer of a new run in the same folder, with config values changed."""
    get_dataset(tiny_cfg.DATASETS.TRAIN[0])

    def make(*changes, keep=0):
        cfg = tiny_cfg.clone()
        cfg.merge_from_list(list(changes))
        model = build_model(cfg)
        optimizer = torch.optim.SGD(model.parameters(), lr=cfg.SOLVER.BASE_LR)
        return ClsCheckpointer(model, cfg.OUTPUT_DIR, info=build_info(cfg), keep=keep, optimizer=optimizer)

    return make


@pytest.fixture
def saved(run, tmp_path):
    (tmp_path / "output").mkdir()
    checkpointer = run()
    checkpointer.save("model_0000009", iteration=9)
    return checkpointer


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and r.name.startswith("imgcls")]


def test_goes_on_without_a_word(saved, run, caplog):
    after = run("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 2, "SOLVER.CHECKPOINT_PERIOD", 7)
    rest = after.resume_or_load("", resume=True)
    assert rest["iteration"] == 9 and rest["imgcls"] == saved.info and warnings(caplog) == []
    before = saved.model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.model.state_dict().items())


def test_a_changed_schedule_is_one_warning_that_names_the_keys(saved, run, caplog):
    run("SOLVER.BASE_LR", 0.2, "SOLVER.MAX_ITER", 30).resume_or_load("", resume=True)
    (message,) = warnings(caplog)
    assert "model_0000009.pth was saved with other settings: " in message
    assert "SOLVER.BASE_LR 0.05 is now 0.2; SOLVER.MAX_ITER 3 is now 30; the run goes on with the new ones" in message
    assert "not be bit-identical" in message


def test_evaluation_may_change_what_it_likes(saved, run, caplog):
    evaluated = run("SOLVER.BASE_LR", 0.2)
    evaluated.checkpointables.clear()
    evaluated.resume_or_load("", resume=True)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("MODEL.MNET.WIDTH_MULT", 0.5), r"has shape .*MODEL\.MNET\.WIDTH_MULT"),
        (("MODEL.MNET.BLOCKS", [1, 1, 1, 2, 1]), r"is missing.*BLOCKS"),
        (("MODEL.CLSNET.NUM_CLASSES", 4), r"NUM_CLASSES"),
        (("MODEL.MNET.ACTIVATION", "relu"), r"of another network: MODEL\.MNET\.ACTIVATION relu6 there"),
        (("MODEL.CLSNET.HEAD", "sigmoid"), r"of another network: MODEL\.CLSNET\.HEAD softmax there"),
        (("INPUT.FORMAT", "RGB"), r"INPUT\.FORMAT BGR there, RGB in the config"),
        (("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]), r"MODEL\.PIXEL_STD \[57\.0, 57\.0, 57\.0\] there"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_another_network_or_preprocessing_is_refused(saved, run, tmp_path, changes, message, named):
    other = run(*changes)
    with pytest.raises(ValueError, match=message) as raised:
        if named:
            other.resume_from(str(tmp_path / "output"))
        else:
            other.resume_or_load("", resume=True)
    assert "model_0000009.pth" in str(raised.value) and "\n" not in str(raised.value)


def test_other_class_names_are_refused(saved, run, tmp_path):
    (tmp_path / "train" / "green").rename(tmp_path / "train" / "white")
    get_dataset(f"folder:{tmp_path / 'train'}")
    with pytest.raises(ValueError, match=r"model_0000009\.pth was trained on other classes.*\(2 differ\)"):
        run().resume_or_load("", resume=True)


@pytest.mark.parametrize("missing", ["optimizer", "iteration", "imgcls"])
def test_weights_alone_are_refused(saved, run, tmp_path, missing):
    path = tmp_path / "output" / "model_0000009.pth"
    content = read_checkpoint(str(path))
    del content[missing]
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"model_0000009\.pth has no '{missing}': .* MODEL\.WEIGHTS "):
        run().resume_or_load("", resume=True)


def test_nothing_to_resume(run):
    with pytest.raises(FileNotFoundError, match=r"^--resume: .*last_checkpoint is not there, nothing to resume"):
        run().resume_or_load("", resume=True)


def test_keeps_the_last_few_and_what_it_takes_to_use_them(saved, run, tmp_path):
    checkpointer = run(keep=2)
    for iteration in (19, 29):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    checkpointer.save("model_best", tag=False, iteration=19)
    folder = tmp_path / "output"
    assert sorted(p.name for p in folder.glob("*.pth")) == ["model_0000019.pth", "model_0000029.pth", "model_best.pth"]
    assert all(read_checkpoint(str(path))["imgcls"] == checkpointer.info for path in folder.glob("*.pth"))
    assert (folder / "last_checkpoint").read_text() == "model_0000029.pth"
