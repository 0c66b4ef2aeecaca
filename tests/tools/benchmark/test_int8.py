"""Benchmark of int8 files: the command on a small network."""

import json

import numpy as np
import pytest
from benchmark import int8 as module
from benchmark.int8 import ABLATIONS, FLOAT, NAIVE, OURS, PHOTOGRAPHS, agreement, make_crops
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_no_photograph_has_two_uses():
    names = [name for folders in PHOTOGRAPHS.values() for photographs in folders.values() for name in photographs]
    assert len(names) == len(set(names)) == 18
    assert not set(module.SPLITS["other photographs"][0]) & set(module.SPLITS["other photographs"][1])


def test_crops_are_those_of_their_photographs_and_the_same_every_time():
    crops = make_crops(["other"], 6, 3, 32)
    assert crops.shape == (6, 3, 32, 32) and crops.dtype == np.uint8
    assert np.array_equal(crops, make_crops(["other"], 6, 3, 32))
    assert not np.array_equal(crops, make_crops(["other"], 6, 4, 32))
    assert not np.array_equal(crops, make_crops(["calibration"], 6, 3, 32))


def test_the_command_compares_three_files(run_tool, tiny_cfg, tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    info = build_info(tiny_cfg, ["blue", "green", "red"])
    write_checkpoint(str(path), {"model": build_model(tiny_cfg).state_dict(), "imgcls": info})
    monkeypatch.setattr(module, "WEIGHTS", path)
    monkeypatch.setattr(module, "CALIBRATION", 32)
    monkeypatch.setattr(module, "JUDGED", 32)
    monkeypatch.setattr(module, "_IMAGES", 1)
    code, printed, error = run_tool("benchmark.py", "int8", "--rounds", 1, "--json", tmp_path / "a.json", "--no-record")
    assert code == 0, error
    facts = json.loads((tmp_path / "a.json").read_text())["facts"]
    figures = {name: fact.split(", ")[:3] for name, fact in facts.items() if "photographs" in name}
    names = [f"{name}, {split}" for split in module.SPLITS for name in (NAIVE, OURS, *ABLATIONS)]
    assert list(figures) == names[: -len(ABLATIONS)]
    assert all(values[0].endswith(" % agree") for values in figures.values())
    assert FLOAT in printed and "batch 32" in printed and "VNNI" in printed
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "missing.pth")
    code, _, error = run_tool("benchmark.py", "int8", "--json", tmp_path / "a.json", "--no-record")
    assert code == 2 and "bash scripts/real_weights.sh writes it" in error


def test_agreement_and_error():
    expected = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], np.float32)
    assert agreement(expected, expected) == (100.0, 0.0)
    found = np.array([[0.7, 0.2, 0.1], [0.8, 0.1, 0.1]], np.float32)
    assert agreement(found, expected) == (50.0, pytest.approx(np.sqrt(2 * np.log(8) ** 2 / 6)))
