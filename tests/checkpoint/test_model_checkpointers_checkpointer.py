import pickle

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.checkpoint import ClsCheckpointer, build_info
from imgcls.data import get_dataset


@pytest.fixture
def checkpointer(tiny_cfg):
    """``checkpointer(KEY, value, ...)``: a new model and its checkpointer, with config values changed."""
    get_dataset(tiny_cfg.DATASETS.TRAIN[0])

    def make(*changes):
        cfg = tiny_cfg.clone()
        cfg.merge_from_list(list(changes))
        return ClsCheckpointer(build_model(cfg), cfg.OUTPUT_DIR, info=build_info(cfg))

    return make


@pytest.fixture
def saved(checkpointer, tmp_path):
    (tmp_path / "output").mkdir()
    source = checkpointer()
    source.save("model")
    return source, str(tmp_path / "output" / "model.pth")


def test_holds_what_it_takes_to_be_used_again_and_loads_safely(saved):
    info = torch.load(saved[1], weights_only=True)["imgcls"]
    assert info["classes"] == ["blue", "green", "red"]
    assert info["preprocessing"]["format"] == "BGR" and info["thresholds"] == {"score": 0.5}
    assert info["version"] and "WIDTH_MULT: 0.25" in info["cfg"]


def test_every_tensor_comes_back(saved, checkpointer):
    target = checkpointer()
    target.load(saved[1])
    before, after = saved[0].model.state_dict(), target.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_empty_path_loads_nothing(checkpointer):
    assert checkpointer().load("") == {}


def test_missing_file(checkpointer):
    with pytest.raises(FileNotFoundError, match=r"MODEL\.WEIGHTS gone\.pth: no such checkpoint"):
        checkpointer().load("gone.pth")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file(saved, checkpointer, share):
    with open(saved[1], "rb") as file:
        data = file.read()
    with open(saved[1], "wb") as file:
        file.write(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"model\.pth is truncated or not a checkpoint") as raised:
        checkpointer().load(saved[1])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("MODEL.CLSNET.NUM_CLASSES", 4), r"\(2 tensors\): head\.linear\..*NUM_CLASSES"),
        (("MODEL.CLSNET.HEAD_CONV_DIM", 8), r"HEAD_CONV_DIM"),
        (("MODEL.MNET.WIDTH_MULT", 0.5), r"has shape .*MODEL\.MNET\.WIDTH_MULT"),
        (("MODEL.MNET.BLOCKS", [1, 1, 1, 2, 1]), r"is missing.*BLOCKS"),
        (("MODEL.MNET.BLOCKS", [1, 1, 1, 1, 2]), r"is missing.*BLOCKS"),
        (("MODEL.BACKBONE.NAME", "build_mnetv2_backbone", "MODEL.MNET.BLOCKS", []), r"MODEL\.BACKBONE\.NAME"),
        (("INPUT.FORMAT", "RGB"), r"INPUT\.FORMAT BGR there, RGB in the config"),
    ],
)
def test_another_architecture_class_count_or_preprocessing_is_refused(saved, checkpointer, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        checkpointer(*changes).load(saved[1])
    assert "model.pth" in str(raised.value) and "\n" not in str(raised.value)


def test_a_deeper_checkpoint_into_a_shallower_model_is_refused(checkpointer, tmp_path):
    (tmp_path / "output").mkdir()
    checkpointer("MODEL.MNET.BLOCKS", [1, 1, 1, 2, 1]).save("deep")
    with pytest.raises(ValueError, match=r"is unknown"):
        checkpointer().load(str(tmp_path / "output" / "deep.pth"))


def test_data_parallel_prefix_is_read(saved, checkpointer, tmp_path):
    """The 2020 project's files kept DDP's prefix and then loaded nothing, with a warning."""
    content = torch.load(saved[1], weights_only=True)
    content["model"] = {f"module.{key}": value for key, value in content["model"].items()}
    torch.save(content, tmp_path / "ddp.pth")
    target = checkpointer()
    target.load(str(tmp_path / "ddp.pth"))
    before = saved[0].model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in target.model.state_dict().items())


def test_a_backbone_alone_leaves_the_head_as_it_was(saved, checkpointer, tmp_path):
    content = torch.load(saved[1], weights_only=True)
    content["model"] = {key: value for key, value in content["model"].items() if key.startswith("backbone.")}
    torch.save(content, tmp_path / "backbone.pth")
    target = checkpointer("MODEL.CLSNET.NUM_CLASSES", 7)
    head = target.model.head.linear.weight.clone()
    target.load(str(tmp_path / "backbone.pth"))
    assert torch.equal(target.model.head.linear.weight, head)
    assert torch.equal(target.model.backbone.stages["stem"].weight, saved[0].model.backbone.stages["stem"].weight)


def test_frozen_and_free_batch_norm_exchange_weights(saved, checkpointer, tmp_path):
    frozen = checkpointer("MODEL.BACKBONE.FREEZE_AT", 3)
    frozen.load(saved[1])
    frozen.save("frozen")
    target = checkpointer()
    target.load(str(tmp_path / "output" / "frozen.pth"))
    before = saved[0].model.state_dict()
    for key, value in target.model.state_dict().items():
        assert torch.equal(value, before[key]), key


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_a_pickle_does_not_run(checkpointer, tmp_path, name):
    path, mark = tmp_path / name, tmp_path / "ran"
    if name.endswith("pth"):
        torch.save({"model": Evil(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Evil(mark)}))
    with pytest.raises(ValueError, match=r"pickle|not a checkpoint"):
        checkpointer().load(str(path))
    assert not mark.exists()


def test_a_file_of_something_else(checkpointer, tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="holds a Tensor, not a checkpoint"):
        checkpointer().load(str(tmp_path / "tensor.pth"))


def test_other_classes_of_the_same_number_are_refused(saved, checkpointer, tmp_path):
    """Equal counts would fit, and every label would mean something else."""
    (tmp_path / "train" / "green").rename(tmp_path / "train" / "white")
    get_dataset(f"folder:{tmp_path / 'train'}")
    message = r"model\.pth was trained on other classes.*class 1 is 'green' there and 'red' here \(2 differ\)"
    with pytest.raises(ValueError, match=message):
        checkpointer().load(saved[1])


def test_stale_last_checkpoint_is_named(saved, checkpointer, tmp_path):
    (tmp_path / "output" / "model.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"--resume: .*last_checkpoint names .*model\.pth, which is not there"):
        checkpointer().resume_or_load("", resume=True)


def test_resume_without_a_checkpoint_is_an_error(checkpointer):
    """The 2020 project printed a line and trained from scratch."""
    with pytest.raises(FileNotFoundError, match=r"--resume: .*last_checkpoint is not there"):
        checkpointer().resume_or_load("", resume=True)
