"""Comparison of exported files: all candidates compute the same, and files are described by size and latency."""

import json

import pytest
import torch
from benchmark import exported as module
from benchmark.compare import Budget
from benchmark.exported import EAGER, OURS, TORCH, compare_exports
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.inference import Predictor
from imgcls.inference.export import export_classifier
from imgcls.inference.score import read_labelled, score


@pytest.mark.slow
def test_all_candidates_compute_the_same(images, monkeypatch, require):
    require("onnxscript"), require("onnxruntime")
    monkeypatch.setattr(module, "timed", lambda call, times: call)
    monkeypatch.setattr(
        module, "compare", lambda title, candidates, *rest: (title, {c.name: c.run() for c in candidates})
    )
    title, found = compare_exports(images, 0.25, batch=1, budget=Budget(1))
    assert title == "export, width 0.25, batch 1" and list(found) == [EAGER, TORCH, OURS]
    torch.testing.assert_close(torch.from_numpy(found[TORCH][0]), found[EAGER], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[OURS], found[EAGER].softmax(1), rtol=0, atol=1e-5)


def test_files_are_a_table_with_sizes_and_latencies(tiny_cfg, run_tool, tmp_path, write_folder, monkeypatch):
    monkeypatch.setattr(module, "_IMAGES", 1)
    verify = write_folder(tmp_path / "verify", {"blue": 22, "green": 22, "red": 22})
    checkpoint, target, out = str(tmp_path / "model.pth"), str(tmp_path / "model.ts"), tmp_path / "out.json"
    info = build_info(tiny_cfg, ["blue", "green", "red"])
    write_checkpoint(checkpoint, {"model": build_model(tiny_cfg).state_dict(), "imgcls": info})
    export_classifier(checkpoint, target, f"folder:{verify}")
    code, printed, error = run_tool(
        "benchmark.py",
        "infer",
        "--model",
        checkpoint,
        target,
        "--rounds",
        2,
        "--data",
        verify,
        "--json",
        out,
        "--record",
        tmp_path / "no",
    )
    assert code == 0, error
    content = json.loads(out.read_text())
    assert [table["title"] for table in content["tables"]] == ["batch 1", "batch 32"]
    for table in content["tables"]:
        assert [row["name"] for row in table["rows"]] == [checkpoint, target]
        assert table["rows"][1]["ratio"].keys() == {checkpoint}
    speed = content["tables"][0]["rows"][1]["median"]
    assert set(content["facts"]) == {checkpoint, target}
    size, first, second, metric = content["facts"][target].split(", ")
    predictor = Predictor.from_file(checkpoint, "cpu")
    results = score(predictor, read_labelled(f"folder:{verify}", predictor.info))["accuracy"]
    assert metric == f"top1 {results['top1']:.2f}" and content["facts"][checkpoint].endswith(metric)
    assert size == f"{(tmp_path / 'model.ts').stat().st_size / 1e6:.2f} MB"
    assert float(first.split()[2]) == pytest.approx(1000 / speed, rel=0.01) and second.startswith("batch 32 ")
    assert f"{target}: {size}" in printed and not (tmp_path / "no").exists()
