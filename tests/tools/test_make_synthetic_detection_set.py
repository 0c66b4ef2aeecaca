"""tools/make_synthetic_detection_set.py: the registered set, and mistakes."""

import json
from functools import partial

import pytest
from detectron2.data import DatasetCatalog

from imgcls.data.readers import fashion_mnist

SMALL = ("--train", "3", "--test", "2", "--size", "64")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic tool")


@pytest.fixture
def tool(monkeypatch, run_tool, shared):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", shared / "debian")
    return partial(run_tool, "make_synthetic_detection_set.py")


def test_it_writes_the_registered_set_and_prints_the_items(tool, shared):
    code, out, err = tool(*SMALL)
    assert code == 0
    assert out.splitlines() == ["items: digits", f"{shared / 'synthetic'}: 3 training and 2 test images written"]
    assert "3/3" in err and "2/2" in err
    assert len(DatasetCatalog.get("synthetic_train")) == 3
    assert len(DatasetCatalog.get("synthetic_test")) == 2

    code, out, _ = tool(*SMALL)
    assert code == 0
    assert out.splitlines()[-1] == f"{shared / 'synthetic'}: 3 training and 2 test images already exist"


def test_arguments_are_used(tool, tmp_path):
    code, out, _ = tool(tmp_path / "mine", "--items", "digits", *SMALL, "--seed", "9")
    assert (code, out.splitlines()[0]) == (0, "items: digits")
    note = json.loads((tmp_path / "mine" / "synthetic.json").read_text())
    assert (note["items"], note["train"], note["test"], note["size"], note["seed"]) == ("digits", 3, 2, 64, 9)


def test_the_old_command_makes_the_same_set(run_tool, tool, tmp_path):
    code, _, err = run_tool("make_detection_canvas.py", tmp_path / "mine", "--items", "digits", *SMALL)
    assert code == 0, err
    assert (tmp_path / "mine" / "synthetic.json").is_file()


def test_mistakes_are_one_line_and_exit_code_2(tool, tmp_path):
    (tmp_path / "mine").write_text("")
    code, _, err = tool(tmp_path, *SMALL)
    assert code == 2
    assert err.startswith("error: ") and "is not empty" in err and len(err.splitlines()) == 1
    code, _, err = tool(tmp_path / "new", "--items", "fashion_mnist", *SMALL)
    assert code == 2
    assert err.startswith("error: Fashion-MNIST is neither in") and len(err.splitlines()) == 1
