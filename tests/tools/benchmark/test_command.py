"""tools/benchmark.py as a user calls it, with few images and rounds."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from benchmark import exported, index, infer, input, sample_images, step, train
from benchmark.compare import Table
from benchmark.record import read_ratios
from PIL import Image

TOOL = Path(__file__).parents[3] / "tools" / "benchmark.py"
COMMANDS = {
    "input": input, "step": step, "compile": step, "infer": infer, "export": exported, "train": train, "index": index,
}  # fmt: skip


@pytest.fixture
def unmeasured(monkeypatch):
    """Every command with its real candidates, which are not run: the tests of each comparison run them."""

    def compare(title, candidates, budget, references=(), warm_up=True):
        names = [candidate.name for candidate in candidates]
        count = len(list(budget.open_rounds(title)()))
        return Table(title, "images/s", {name: [1.0] * count for name in names}, references, budget.planned)

    for module in (input, step, infer, exported, train):
        monkeypatch.setattr(module, "compare", compare)
    for module in (step, infer, exported):
        monkeypatch.setattr(module, "WIDTHS", (0.25,))
    for name in ("_export", "_export_by_torch"):
        monkeypatch.setattr(exported, name, lambda *_: None)
    monkeypatch.setattr(sample_images, "COUNT", 8)
    monkeypatch.setattr(input, "compare_pixels", partial(input.compare_pixels, count=2))
    monkeypatch.setattr(input, "soak_loader", lambda folder, batches: {"soak, batches": batches})
    monkeypatch.setattr(index, "compare_index", partial(index.compare_index, records=1500))
    figures = {"seconds": 1.0, "kept": 1.0, "peak": 1.0, "worker": 1.0}
    monkeypatch.setattr(index, "_probe", lambda how, path, cache: figures)


@pytest.mark.parametrize("what", COMMANDS)
def test_each_command_prints_writes_draws_and_records(what, run_tool, tmp_path, unmeasured):
    out, record = tmp_path / "out put" / "figures.json", tmp_path / "record" / "results.csv"
    soak = ("--soak", 10) if what == "input" else ()
    code, printed, error = run_tool("benchmark.py", what, "--rounds", 1, "--json", out, "--record", record, *soak)
    assert code == 0, error
    content = json.loads(out.read_text())
    assert content["what"] == what and content["machine"]["cores"] >= 1
    assert all(row["name"] in printed for table in content["tables"] for row in table["rows"])
    assert "machine: processor" in printed and "torch " in printed and "rounds: 1\n" in printed
    with Image.open(out.with_suffix(".png")) as image:
        image.load()
        assert image.format == "PNG"
    ratios = read_ratios(record)
    assert ratios and {(row.command, row.rounds) for row in ratios} == {(what, 1)}
    if what == "input":
        assert content["facts"]["mean difference to Pillow (levels of 255)"] <= 0.5
        assert content["facts"]["soak, batches"] == 10 and content["facts"]["images"] == 8
        assert "soak, batches: 10" in printed
        assert "imgcls, packed" in {row.candidate for row in ratios}
    code, summary, error = run_tool("benchmark.py", "summary", "--record", record)
    assert code == 0, error
    assert summary.count("1 (fewer than 3)") == len(ratios)


def test_figures_go_to_output_and_are_not_recorded_if_so_asked(run_tool, tmp_path, unmeasured, monkeypatch):
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
        (["step", "--model", "a.onnx"], "--model is for infer"),
        (["infer", "--model", "nothing.onnx"], "error: nothing.onnx: no such file"),
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
def test_a_missing_extra_is_one_line_of_the_command_that_needs_it(extra, package, run_tool, monkeypatch, unmeasured):
    for module in ("benchmark.sample_images", "benchmark.peers"):
        real = sys.modules[module].find_spec
        monkeypatch.setattr(
            sys.modules[module], "find_spec", lambda name, real=real: None if name == package else real(name)
        )
    code, out, error = run_tool("benchmark.py", "input", "--no-record")
    assert (code, out) == (2, "")
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert package in line and f'pip install -e ".[{extra}]"' in line
