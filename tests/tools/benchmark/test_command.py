"""tools/benchmark.py as a user calls it, with few images and rounds."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from benchmark import index, infer, input, sample_images, step, train
from benchmark.record import read_ratios
from PIL import Image

TOOL = Path(__file__).parents[3] / "tools" / "benchmark.py"
CANDIDATES = {
    "input": ["imgcls", "imgcls, packed", "torchvision reference", "imgcls, 2 workers"],
    "step": ["imgcls", "imgcls, contiguous"],
    "infer": ["imgcls, plain eager", "imgcls, channels_last"],
    "train": ["bare loop", "imgcls, train_net_builtin.py", "imgcls, train_net.py"],
    "index": ["imgcls, JSON", "imgcls, index"],
}


@pytest.fixture
def tiny(monkeypatch):
    """Every comparison with as little work as possible."""

    def shrink(module, name, **arguments):
        monkeypatch.setattr(module, name, partial(getattr(module, name), **arguments))

    monkeypatch.setattr(sample_images, "COUNT", 8)
    monkeypatch.setattr(input, "LOADER_BATCHES", 1)
    for name, size in {"compare_input": 2, "compare_loaders": 2, "soak_loader": 2}.items():
        shrink(input, name, batch=size)
    shrink(input, "compare_pixels", count=2)
    monkeypatch.setattr(step, "WIDTHS", (0.25,))
    shrink(step, "compare_steps", batch=2)
    monkeypatch.setattr(infer, "WIDTHS", (0.25,))
    monkeypatch.setattr(infer, "BATCHES", (1,))
    monkeypatch.setattr(infer, "_IMAGES", 1)
    shrink(train, "compare_trainers", batch=2, warm_up=1, measured=1, size=32)
    shrink(index, "compare_index", records=1500)
    probe = index._probe

    def probe_index_only(how, path):
        """Starts a process for one of three candidates, because most of its time is spent on imports."""
        if "indexed" in path.parts:
            return probe(how, path)
        return {"seconds": 1.0, "kept": 1.0, "peak": 1.0, "worker": 1.0}

    monkeypatch.setattr(index, "_probe", probe_index_only)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("what", CANDIDATES)
def test_each_command_prints_writes_draws_and_records(what, run_tool, tmp_path, tiny):
    out, record = tmp_path / "out put" / "figures.json", tmp_path / "record" / "results.csv"
    soak = ("--soak", 10) if what == "input" else ()
    code, printed, error = run_tool("benchmark.py", what, "--rounds", 1, "--json", out, "--record", record, *soak)
    assert code == 0, error
    content = json.loads(out.read_text())
    assert content["what"] == what and content["machine"]["cores"] >= 1
    names = [row["name"] for table in content["tables"] for row in table["rows"]]
    assert set(CANDIDATES[what]) <= set(names)
    assert all(name in printed for name in names)
    assert "machine: processor" in printed and "torch " in printed and "rounds: 1\n" in printed
    with Image.open(out.with_suffix(".png")) as image:
        image.load()
        assert image.format == "PNG"
    ratios = read_ratios(record)
    assert ratios and {(row.command, row.rounds) for row in ratios} == {(what, 1)}
    if what == "input":
        facts = content["facts"]
        assert facts["mean difference to Pillow (levels of 255)"] <= 0.5
        assert facts["soak, batches"] == 10 and facts["images"] == 8
        assert "soak, open files, late: " in printed
    code, summary, error = run_tool("benchmark.py", "summary", "--record", record)
    assert code == 0, error
    assert summary.count("1 (fewer than 3)") == len(ratios)


def test_figures_go_to_output_and_are_not_recorded_if_so_asked(run_tool, tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, error = run_tool("benchmark.py", "infer", "--rounds", 3, "--minutes", "1e-9", "--no-record")
    assert code == 0, error
    assert "rounds: 1 of 3; the time was up (--minutes)" in printed
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix in (".csv", ".json")}
    assert files == {"output/benchmark/infer.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["input", "--data", "nowhere"], "error: nowhere: no such folder"),
        (["index", "--data", "nowhere"], "error: --data nowhere: no imagenet_detectron2_train.json"),
        (["step", "--soak", "3"], "--soak is for input"),
        (["step", "--json", "out.png"], "--json out.png: expected a name that ends with .json"),
        (["step", "--rounds", "0"], "0: expected a whole number, 1 or more"),
        (["step", "--minutes", "-1"], "-1: expected a number above 0"),
        (["speed"], "invalid choice: 'speed'"),
        (["summary", "--record", "nowhere.csv"], "error: nowhere.csv: no such file"),
        (["summary", "--no-record"], "summary reads the recorded ratios; drop --no-record"),
    ],
)
def test_mistakes_are_one_line(arguments, said, run_tool):
    code, out, error = run_tool("benchmark.py", *arguments)
    assert (code, out) == (2, "") and said in error.splitlines()[-1]


def test_help_needs_no_extra():
    """Nor torch, detectron2 or this package: hiding them is also what keeps this test fast."""
    hidden = ("webdataset", "timm", "imgcls", "detectron2", "torch", "cv2", "sklearn", "skimage")
    code = f"import runpy, sys; sys.modules |= dict.fromkeys({hidden}); sys.argv = ['benchmark.py', '--help']; "
    code += f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: benchmark.py" in result.stdout and "MODEL.COMPILE" in result.stdout


@pytest.mark.parametrize(("extra", "package"), [("shards", "webdataset"), ("timm", "timm")])
def test_a_missing_extra_is_one_line_of_the_command_that_needs_it(extra, package, run_tool, monkeypatch, tiny):
    for module in ("benchmark.sample_images", "benchmark.peers"):
        real = sys.modules[module].find_spec
        monkeypatch.setattr(
            sys.modules[module], "find_spec", lambda name, real=real: None if name == package else real(name)
        )
    code, out, error = run_tool("benchmark.py", "input", "--no-record")
    assert (code, out) == (2, "")
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert package in line and f'pip install -e ".[{extra}]"' in line
