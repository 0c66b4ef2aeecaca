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
    source_line, first, title, empty, *config = printed.splitlines()
    source = torch.load(vision, weights_only=True)
    count = len([name for name in source if "num_batches" not in name])
    assert (source_line, title, empty) == ("source: torchvision", "its config:", "")
    assert first == (
        f"{out}: {count}/{count} tensors of torchvision's mobilenet_v2, width 1.0, converted; "
        "dropped: *.num_batches_tracked (52)"
    )
    written = torch.load(out, weights_only=True)
    assert len(written["model"]) == count
    assert torch.equal(written["model"]["backbone.stages.stem.weight"], source["features.0.0.weight"])
    assert yaml.safe_load("\n".join(config)) == yaml.safe_load(written["imgcls"]["cfg"])
    assert yaml.safe_load("\n".join(config))["MODEL"]["CLSNET"]["HEAD_CONV_DIM"] == 1280


def test_safetensors(run, tmp_path):
    net = timm.create_model("mobilenetv1_100", num_classes=3)
    files.save_file(net.state_dict(), tmp_path / "timm.safetensors")
    code, printed, _ = run("--source", "timm", tmp_path / "timm.safetensors", tmp_path / "out.pth")
    assert code == 0 and ": 137/137 tensors of timm's MobileNetV1" in printed
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
    assert error.endswith("; give another FILE or --source\n") and "(conv1.weight (64, 3, 7, 7), " in error
    assert (tmp_path / "out.pth").read_text() == "before"


def test_without_a_source_the_names_decide(vision, run, tmp_path):
    code, printed, error = run(vision, tmp_path / "out.pth")
    assert (code, error) == (0, "") and printed.startswith("source: torchvision\n")
    torch.save(resnet18(num_classes=3).state_dict(), vision)
    code, _, error = run(vision, tmp_path / "out.pth")
    assert (
        code == 2 and f"{vision} with --source auto: 102 tensors (conv1.weight, bn1.weight, ...) of no known" in error
    )


@pytest.fixture
def pytorchcv(tmp_path):
    """The names of pytorchcv's mobilenet_wd4, and the shapes of timm's weights for the same network."""
    net = timm.create_model("mobilenetv1_100", num_classes=3)
    path = tmp_path / "mobilenet_wd4.pth"
    units = [(row, unit) for row, count in enumerate((1, 2, 2, 6, 2)) for unit in range(count)]
    renamed = {"conv_stem.": "features.init_block.conv.", "bn1.": "features.init_block.bn.", "classifier.": "output."}
    for row, unit in units:
        there, here = f"blocks.{row}.{unit}.", f"features.stage{row + 1}.unit{unit + 1}."
        parts = {"conv_dw.": "dw_conv.conv.", "bn1.": "dw_conv.bn.", "conv_pw.": "pw_conv.conv.", "bn2.": "pw_conv.bn."}
        renamed |= {there + old: here + new for old, new in parts.items()}
    state = {}
    for name, value in net.state_dict().items():
        old = max((old for old in renamed if name.startswith(old)), key=len)
        state[name.replace(old, renamed[old], 1)] = value
    torch.save(state, path)
    return path


def test_what_the_file_cannot_say_is_stated_by_flags(pytorchcv, run, tmp_path):
    out = tmp_path / "out.pth"
    code, _, error = run(pytorchcv, out)
    assert code == 2 and error.count("\n") == 1 and not out.exists() and "give another FILE" not in error
    flags = "--format BGR|RGB --mean A B C --std A B C --activation relu6|relu|leaky_relu"
    assert f"{pytorchcv} with --source auto: the file cannot say how" in error and flags in error
    (tmp_path / "names.txt").write_text("cat\ndog\n\nbird\n")
    stated = ("--format", "RGB", "--mean", 10, 20, 30, "--std", 40, 50, 60, "--activation", "relu")
    code, printed, error = run(pytorchcv, out, *stated, "--classes", tmp_path / "names.txt")
    assert (code, error) == (0, "") and printed.startswith("source: pytorchcv\n") and "137/137 tensors" in printed
    about = torch.load(out, weights_only=True)["imgcls"]
    assert about["classes"] == ["cat", "dog", "bird"]
    assert about["preprocessing"]["format"] == "RGB" and about["preprocessing"]["pixel_std"] == [40.0, 50.0, 60.0]


def test_statements_in_fractions_are_refused(vision, run, tmp_path):
    code, _, error = run(vision, tmp_path / "out.pth", "--mean", 0.485, 0.456, 0.406)
    assert code == 2 and error.endswith("allowed: for pixels from 0 to 255: 123.675 116.28 103.53\n")


@pytest.mark.parametrize(("text", "message"), [("a\nb\na\n", "has 'a' more than once"), ("\n", "has no names")])
def test_class_names_that_are_refused(vision, run, tmp_path, text, message):
    (tmp_path / "names.txt").write_text(text)
    code, _, error = run(vision, tmp_path / "out.pth", "--classes", tmp_path / "names.txt")
    assert code == 2 and f"names.txt {message}; allowed: a text file" in error
    code, _, error = run(vision, tmp_path / "out.pth", "--classes", tmp_path / "none.txt")
    assert code == 2 and "none.txt: no such file" in error


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
