"""`imgcls make-imagenet-json`: the three files, indexes, and mistakes."""

import json
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def tool(run_verb):
    return partial(run_verb, "make-imagenet-json")


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


def test_makes_the_indexes_too(tool, tmp_path):
    for file in ("train/a/1.png", "val/a/3.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    code, out, _ = tool("--root", tmp_path, "--save", tmp_path / "out", "--index")
    assert code == 0
    assert [line.rpartition("/")[2] for line in out.splitlines()] == [
        "imagenet_detectron2_train.json",
        "imagenet_detectron2_val.json",
        "class_to_idx.json",
        "imagenet_detectron2_train.index",
        "imagenet_detectron2_val.index",
    ]
    assert all(Path(line).exists() for line in out.splitlines())


def test_indexes_any_json(tool, tmp_path):
    for name in ("my set.json", "b.json"):
        (tmp_path / name).write_text('[{"file_name": "a.png", "label": 0}]')
    code, out, err = tool("--index", tmp_path / "my set.json", tmp_path / "b.json")
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(tmp_path / "my set.index"), str(tmp_path / "b.index")]
    assert (tmp_path / "b.index").is_file()


def test_an_index_of_a_file_that_is_no_list_of_records(tool, tmp_path):
    (tmp_path / "a.json").write_text('{"a": 0}')
    code, out, err = tool("--index", tmp_path / "a.json")
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path / 'a.json'}: expected a list of records, got {{'a': 0}} (dict)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --root and --save, or --index with the JSON files to index"),
        (("--index",), "needs --root and --save, or --index with the JSON files to index"),
        (("--root", "x"), "needs --root and --save, or"),
        (("--save", "x", "--index"), "needs --root and --save, or"),
        (("--root", "x", "--save", "y", "--index", "a.json"), "--index with files excludes --root and --save"),
    ],
)
def test_arguments_that_do_not_fit(tool, arguments, message):
    code, out, err = tool(*arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


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
