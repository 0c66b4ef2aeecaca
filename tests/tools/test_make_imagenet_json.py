"""tools/make_imagenet_json.py: the three files, and mistakes."""

import json
from functools import partial

import pytest


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, "make_imagenet_json.py")


def test_writes_three_files_and_says_which(tool, tmp_path):
    for file in ("train/b/1.png", "train/a/2.png", "val/b/3.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    code, out, err = tool("--root", tmp_path, "--save", tmp_path / "out")
    assert code == 0
    names = ["imagenet_detectron2_train.json", "imagenet_detectron2_val.json", "class_to_idx.json"]
    assert out.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert "train classes" in err
    val = json.loads((tmp_path / "out" / names[1]).read_text())
    assert val == [{"file_name": "../val/b/3.png", "image_id": 1, "label": 1, "class": "b"}]


def test_a_users_mistake_is_one_line_and_exit_code_2(tool, tmp_path):
    code, out, err = tool("--root", tmp_path / "nothing", "--save", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert "nothing: has no folder ILSVRC2012_img_train or train" in err


def test_a_save_folder_that_cannot_be_written(tool, tmp_path):
    for file in ("train/a/1.png", "val/a/2.png", "file"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    code, _, err = tool("--root", tmp_path, "--save", tmp_path / "file" / "out")
    assert code == 2 and "cannot be written" in err.splitlines()[-1]
