"""`imgcls convert` on files of the installed torchvision and timm."""

import argparse
import sys
from functools import partial

import pytest
import safetensors.torch as files
import timm
import torch
import yaml
from torchvision.models import mobilenet_v2, resnet18


@pytest.fixture
def run(run_verb):
    return partial(run_verb, "convert")


@pytest.fixture
def vision(tmp_path):
    path = tmp_path / "vision.pth"
    torch.save(mobilenet_v2(num_classes=3).state_dict(), path)
    return path


def test_prints_the_count_and_the_config_that_is_in_the_file(vision, run, tmp_path):
    out = tmp_path / "out.pth"
    code, printed, error = run("--source", "torchvision", vision, out)
    assert (code, error) == (0, "")
    first, empty, *config = printed.splitlines()
    source = torch.load(vision, weights_only=True)
    count = len([name for name in source if "num_batches" not in name])
    assert first == f"{count} tensors of {vision} converted to {out}; its config:" and empty == ""
    written = torch.load(out, weights_only=True)
    assert len(written["model"]) == count
    assert torch.equal(written["model"]["backbone.stages.stem.weight"], source["features.0.0.weight"])
    assert yaml.safe_load("\n".join(config)) == yaml.safe_load(written["imgcls"]["cfg"])
    assert yaml.safe_load("\n".join(config))["MODEL"]["CLSNET"]["HEAD_CONV_DIM"] == 1280


def test_safetensors(run, tmp_path):
    net = timm.create_model("mobilenetv1_100", num_classes=3)
    files.save_file(net.state_dict(), tmp_path / "timm.safetensors")
    code, printed, _ = run("--source", "timm", tmp_path / "timm.safetensors", tmp_path / "out.pth")
    assert code == 0 and printed.startswith("137 tensors")
    written = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert torch.equal(written["head.linear.weight"], net.classifier.weight)


def test_safetensors_without_the_package(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "timm.safetensors"
    code, _, error = run("--source", "timm", path, tmp_path / "out.pth")
    assert code == 2
    assert error == f'error: {path}: reading it needs the package safetensors: pip install -e ".[timm]"\n'


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file(run, tmp_path, name, share):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save({"a": torch.zeros(1000)}, path)
    else:
        files.save_file({"a": torch.zeros(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    code, _, error = run("--source", "timm", path, tmp_path / "out.pth")
    assert code == 2 and error.startswith(f"error: {path} is truncated or not a") and error.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_missing_file(run, tmp_path, name):
    code, _, error = run("--source", "timm", tmp_path / name, tmp_path / "out.pth")
    assert code == 2 and str(tmp_path / name) in error and error.count("\n") == 1


@pytest.mark.parametrize("source", ["timm", "upstream", "torchvision"])
def test_another_network_is_one_line_and_writes_nothing(run, tmp_path, source):
    path = tmp_path / "resnet.pth"
    torch.save(resnet18(num_classes=3).state_dict(), path)
    (tmp_path / "out.pth").write_text("before")
    code, printed, error = run("--source", source, path, tmp_path / "out.pth")
    assert (code, printed) == (2, "") and error.count("\n") == 1
    assert error.startswith(f"error: {path} with --source {source}: not ")
    assert error.endswith("; give another FILE or --source\n") and "(conv1.weight, " in error
    assert (tmp_path / "out.pth").read_text() == "before"


def test_unknown_source(vision, run, tmp_path):
    code, _, error = run("--source", "keras", vision, tmp_path / "out.pth")
    assert code == 2 and "invalid choice: 'keras'" in error and "torchvision" in error


def test_pickle_needs_the_flag(vision, run, tmp_path):
    content = {"model": torch.load(vision, weights_only=True), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "pickle.pth")
    arguments = ("--source", "torchvision", tmp_path / "pickle.pth", tmp_path / "out.pth")
    code, _, error = run(*arguments)
    assert code == 2 and "--allow-pickle" in error and error.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()
    assert run(*arguments, "--allow-pickle")[0] == 0
    assert torch.load(tmp_path / "out.pth", weights_only=True)["model"]
