"""Benchmark of int8 files: the command on a small network, and the figures that the manual states on real weights."""

import os
from pathlib import Path

import numpy as np
import pytest
from benchmark import int8 as module
from benchmark.int8 import FLOAT, NAIVE, OURS, PHOTOGRAPHS, export_float, make_crops, run_file
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint

WEIGHTS = Path(__file__).parents[3] / module.WEIGHTS

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_no_photograph_has_two_uses():
    names = [name for folders in PHOTOGRAPHS.values() for photographs in folders.values() for name in photographs]
    assert len(names) == len(set(names)) == 18


def test_crops_are_those_of_their_photographs_and_the_same_every_time():
    crops = make_crops("report", 6, 3, 32)
    assert crops.shape == (6, 3, 32, 32) and crops.dtype == np.uint8
    assert np.array_equal(crops, make_crops("report", 6, 3, 32))
    assert not np.array_equal(crops, make_crops("report", 6, 4, 32))
    assert not np.array_equal(crops, make_crops("validation", 6, 3, 32))


def test_the_command_compares_three_files(run_tool, tiny_cfg, tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    info = build_info(tiny_cfg, ["blue", "green", "red"])
    write_checkpoint(str(path), {"model": build_model(tiny_cfg).state_dict(), "imgcls": info})
    monkeypatch.setattr(module, "WEIGHTS", path)
    monkeypatch.setattr(module, "COUNTS", {"calibration": 32, "validation": 16, "report": 32})
    monkeypatch.setattr(module, "_IMAGES", 1)
    code, printed, error = run_tool("benchmark.py", "int8", "--rounds", 1, "--json", tmp_path / "a.json", "--no-record")
    assert code == 0, error
    for words in (
        FLOAT,
        NAIVE,
        OURS,
        "batch 32",
        f"{OURS}: same class as float, report crops (%)",
        "VNNI",
        "size / float",
    ):
        assert words in printed
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "missing.pth")
    code, _, error = run_tool("benchmark.py", "int8", "--json", tmp_path / "a.json", "--no-record")
    assert code == 2 and "bash scripts/real_weights.sh writes it" in error


@pytest.mark.slow
@pytest.mark.skipif(
    not WEIGHTS.exists() and not os.environ.get("CI"),
    reason="no real weights here; bash scripts/real_weights.sh fetches them",
)
def test_mobilenet_v2_keeps_its_predictions(tmp_path):
    paths = {name: str(tmp_path / f"{index}.onnx") for index, name in enumerate((FLOAT, NAIVE, OURS))}
    calibration, others = make_crops("calibration", 128, 0, 224), make_crops("validation", 200, 1, 224)
    export_float(paths[FLOAT])
    module.quantize_naively(paths[FLOAT], paths[NAIVE], calibration)
    result = module.quantize(paths[FLOAT], paths[OURS], [calibration])
    expected = run_file(paths[FLOAT], others).argmax(1)
    ours, naive = ((run_file(paths[name], others).argmax(1) == expected).mean() for name in (OURS, NAIVE))
    assert ours > 0.92 and ours > naive + 0.08
    assert result.size_ratio < 0.3
