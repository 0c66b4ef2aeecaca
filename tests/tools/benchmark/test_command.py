"""tools/benchmark.py as a user calls it, with few images and rounds."""

import json
import sys
from functools import partial

import pytest
from benchmark import index, infer, input, loader, quality, sample_images, step, train
from PIL import Image

CONTESTANTS = {
    "input": ["imgcls", "imgcls, packed", "torchvision reference", "imgcls, 2 workers"],
    "step": ["imgcls", "imgcls, contiguous"],
    "infer": ["imgcls, plain eager", "imgcls, channels_last"],
    "train": ["bare loop", "imgcls, train_net_builtin.py", "imgcls, train_net.py"],
    "index": ["imgcls, JSON", "imgcls, index"],
}


@pytest.fixture
def tiny(monkeypatch):
    """Every race with as little work as it can have."""

    def shrink(module, name, **arguments):
        monkeypatch.setattr(module, name, partial(getattr(module, name), **arguments))

    monkeypatch.setattr(sample_images, "COUNT", 8)
    shrink(input, "race_input", batch=2)
    monkeypatch.setattr(loader, "BATCHES", 1)
    shrink(loader, "race_loader", batch=2)
    shrink(loader, "soak_loader", batch=2)
    shrink(quality, "compare_pixels", count=2)
    monkeypatch.setattr(step, "WIDTHS", (0.25,))
    shrink(step, "race_steps", batch=2, compiled=False)
    monkeypatch.setattr(infer, "WIDTHS", (0.25,))
    monkeypatch.setattr(infer, "BATCHES", (1,))
    monkeypatch.setattr(infer, "_IMAGES", 1)
    shrink(train, "race_trainers", batch=2, warm_up=1, measured=1, size=32)
    shrink(index, "race_index", records=1500)
    probe = index._probe

    def probe_index_only(how, path):
        """A process of its own for one candidate of three: importing everything takes most of the time."""
        if "indexed" in path.parts:
            return probe(how, path)
        return {"seconds": 1.0, "kept": 1.0, "peak": 1.0, "worker": 1.0}

    monkeypatch.setattr(index, "_probe", probe_index_only)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("what", CONTESTANTS)
def test_each_prints_writes_and_draws(what, run_tool, tmp_path, tiny):
    out = tmp_path / "out put" / "figures.json"
    code, printed, error = run_tool("benchmark.py", what, "--rounds", 1, "--json", out)
    assert code == 0, error
    content = json.loads(out.read_text())
    assert content["what"] == what and content["machine"]["cores"] >= 1
    names = [row["name"] for table in content["tables"] for row in table["rows"]]
    assert set(CONTESTANTS[what]) <= set(names)
    for name in names:
        assert name in printed
    assert "machine: processor" in printed and "torch " in printed
    with Image.open(out.with_suffix(".png")) as image:
        image.load()
        assert image.format == "PNG"


def test_input_tells_how_exact_the_pixels_are_and_soaks_where_asked(run_tool, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, error = run_tool("benchmark.py", "input", "--rounds", 1, "--soak", 10)
    assert code == 0, error
    facts = json.loads((tmp_path / "output" / "benchmark" / "input.json").read_text())["facts"]
    assert facts["mean difference to Pillow (levels of 255)"] <= 0.5
    assert facts["soak, batches"] == 10 and facts["images"] == 8
    assert "soak, open files, late: " in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["input", "--data", "nowhere"], "error: nowhere: no such folder"),
        (["index", "--data", "nowhere"], "error: --data nowhere: has no imagenet_detectron2_train.json"),
        (["step", "--soak", "3"], "--soak is for input"),
        (["step", "--json", "out.png"], "--json out.png: expected a name that ends with .json"),
        (["step", "--rounds", "0"], "0: expected a number from 1 on"),
        (["speed"], "invalid choice: 'speed'"),
    ],
)
def test_mistakes_are_one_line(arguments, said, run_tool):
    code, out, error = run_tool("benchmark.py", *arguments)
    assert (code, out) == (2, "") and said in error.splitlines()[-1]
