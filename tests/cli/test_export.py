"""``imgcls export`` and the verbs that take what it writes."""

import json

import pytest
from detectron2.modeling import build_model

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.inference import Predictor


@pytest.fixture
def model(tiny_cfg, tmp_path, write_folder, run_verb) -> str:
    """A checkpoint of a short training, with a test set of 66 images in its config."""
    test = write_folder(tmp_path / "val", {"blue": 22, "green": 22, "red": 22})
    config = tmp_path / "config.yaml"
    config.write_text(tiny_cfg.dump())
    code, _, error = run_verb("train", "--num-gpus", 0, "--config-file", config, "DATASETS.TEST", f"('folder:{test}',)")
    assert code == 0, error
    return str(tmp_path / "output" / "model_final.pth")


def test_from_training_to_metrics_of_the_exported_file(model, run_verb, tmp_path):
    target = tmp_path / "model.ts"
    code, printed, error = run_verb("export", model, target)
    assert (code, error) == (0, "") and printed.startswith(
        f"{target}: verified on 66 images: 0 with another best class, "
    )
    content = {}
    for name in (model, target):
        folder = tmp_path / f"metrics of {str(name)[-3:]}"
        code, printed, error = run_verb(
            "eval",
            name,
            f"folder:{tmp_path / 'val'}",
            "--output",
            folder,
            "-j",
            0,
            "--batch-size",
            4,
            "--device",
            "cpu",
        )
        assert (code, error) == (0, "")
        content[name] = json.loads((folder / "accuracy.json").read_text())
        lines = [f"{metric}: {value:.4f}" for metric, value in content[name]["metrics"].items()]
        assert printed.splitlines() == [f"66 images of folder:{tmp_path / 'val'}", *lines]
    exact, exported = (dict(content[name]["metrics"]) for name in (model, target))
    assert exported.pop("loss") == pytest.approx(exact.pop("loss"), rel=1e-5)
    assert exported == exact and content[model]["per_class"] == content[target]["per_class"]
    evaluated = json.loads((tmp_path / "output" / "inference" / "accuracy.json").read_text())
    assert content[model] == evaluated  # of the end of training


def test_an_exported_file_predicts_and_names_can_be_given(tiny_cfg, run_verb, tmp_path, write_folder):
    model, target, out, names = (tmp_path / name for name in ("model.pth", "model.ts", "out.jsonl", "names.txt"))
    net = build_model(tiny_cfg)
    net.head.linear.weight.data.normal_(std=30.0)
    write_checkpoint(str(model), {"model": net.state_dict(), "imgcls": build_info(tiny_cfg, ["blue", "green", "red"])})
    val = write_folder(tmp_path / "val", {"blue": 22, "green": 22, "red": 22})
    code, _, error = run_verb("export", model, target, "--verify", f"folder:{val}")
    assert (code, error) == (0, "")
    names.write_text("b\ng\nr\n")
    code, _, error = run_verb(
        "predict", target, tmp_path / "val", "-o", out, "-j", 0, "--classes", names, "--device", "cpu"
    )
    assert (code, error) == (0, "")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    files = [row["file_name"] for row in rows]
    predictions = list(Predictor.from_checkpoint(model, "cpu").predict(files))
    assert len(rows) == 66 and [row["classes"] for row in rows] == [
        [name[0] for name in p.classes] for p in predictions
    ]
    for row, prediction in zip(rows, predictions, strict=True):
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-4)
    names.write_text("b\nb\nr\n")
    code, _, error = run_verb("predict", target, tmp_path / "val", "--classes", names)
    assert code == 2 and error == f"error: --classes {names} has 'b' more than once; allowed: " + (
        "a text file with one name a line, each once\n"
    )


def test_an_int8_file_is_exported_evaluated_and_predicts(model, run_verb, tmp_path, require):
    require("onnxruntime"), require("onnx"), require("onnxscript")
    target, val = tmp_path / "int8.onnx", f"folder:{tmp_path / 'val'}"
    code, printed, error = run_verb(
        "export", model, target, "--quantize", "int8", "--calibrate", val, "--max-drop", 5, "--verify", val
    )
    assert (code, error) == (0, "")
    lines = printed.splitlines()
    assert lines[0] == f"{target}: verified on 66 images"
    assert [line.split()[0] for line in lines[2:5]] == ["float", "quantize_static", "int8"]
    assert "layers compute in float: " in lines[5] and len(lines) == 6
    code, printed, error = run_verb("eval", target, val, "-j", 0)
    assert (code, error) == (0, "") and printed.splitlines()[1].startswith("top1: 33.3")
    assert lines[4].split()[2] == "33.33"
    code, _, error = run_verb("predict", target, tmp_path / "val", "-o", tmp_path / "out.csv", "-j", 0)
    assert (code, error) == (0, "") and len((tmp_path / "out.csv").read_text().splitlines()) == 67


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["export", "MODEL", "model.pb"],
            "error: model.pb: the suffix '.pb' is no export format; allowed: .onnx (ONNX), ",
        ),
        (["export", "nothing.pth", "model.ts"], "error: nothing.pth: no such checkpoint\n"),
        (["export", "MODEL", "MODEL.ts", "--opset", "18"], "error: MODEL.ts: exists; add --force"),
        (["export", "MODEL", "other.ts", "--verify", "folder:nowhere"], "error: --verify nowhere: no such folder\n"),
        (
            ["export", "MODEL", "other.onnx", "--quantize", "int8"],
            "error: --quantize int8 needs images to quantise",
        ),
        (["export", "MODEL", "other.onnx", "--calibrate", "folder:val"], "error: --calibrate is for int8 files: add "),
        (["export", "MODEL", "other.onnx", "--max-drop", "2"], "error: --max-drop is for int8 files: add --quantize"),
        (
            ["export", "MODEL", "other.onnx", "--quantize", "int8", "--calibrate", "folder:val", "--max-drop", "-1"],
            "error: --max-drop is -1; allowed: points, from 0 to 100",
        ),
        (
            ["export", "MODEL", "other.pt2", "--quantize", "int8", "--calibrate", "folder:val"],
            "error: other.pt2: --quantize writes .onnx files only",
        ),
        (["eval", "nothing.onnx", "folder:val"], "error: nothing.onnx: no such file\n"),
        (["eval", "MODEL", "folder:val", "--batch-size", "0"], "--batch-size is 0; allowed: from 1"),
        (["eval", "MODEL", "folder:nowhere"], "error: nowhere: no such folder\n"),
        (["predict", "MODEL.ts", "val"], "error: MODEL.ts is truncated, damaged or not an exported file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, said, tiny_cfg, run_verb, tmp_path, monkeypatch, require):
    require("onnxruntime"), require("onnx"), require("onnxscript")
    monkeypatch.chdir(tmp_path)
    info = build_info(tiny_cfg, ["blue", "green", "red"])
    write_checkpoint("MODEL", {"model": build_model(tiny_cfg).state_dict(), "imgcls": info})
    (tmp_path / "MODEL.ts").write_text("no archive")
    if "exists" in said:
        arguments = [*arguments[:3]]
    code, printed, error = run_verb(*arguments)
    assert (code, printed) == (2, "") and said in error
    assert error.startswith(("error: ", "usage: "))
