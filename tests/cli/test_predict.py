import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.inference import Predictor

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def model(tiny_cfg, tmp_path) -> str:
    """A checkpoint whose probabilities differ between images."""
    net = build_model(tiny_cfg)
    net.head.linear.weight.data.normal_(std=30.0)
    path = str(tmp_path / "model.pth")
    write_checkpoint(path, {"model": net.state_dict(), "imgcls": build_info(tiny_cfg, ["blue", "green", "red"])})
    return path


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Seven images, images/0.png to images/6.png."""
    rng = np.random.default_rng(5)
    (tmp_path / "images").mkdir()
    paths = [str(tmp_path / "images" / f"{number}.png") for number in range(7)]
    for path in paths:
        pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 50), Image.Resampling.NEAREST).save(path)
    return paths


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_rows(model, images, batch_size=32, topk=5) -> list[dict]:
    predictions = Predictor.from_checkpoint(model, "cpu").predict(images, batch_size, topk)
    return [
        {"file_name": p.source, "classes": p.classes, "probabilities": [round(v, 6) for v in p.probabilities]}
        for p in predictions
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_is_predicted_as_by_the_predictor(run_verb, model, images, tmp_path, workers):
    out = tmp_path / "out.jsonl"
    code, printed, _ = run_verb(
        "predict", model, tmp_path / "images", "--output", out, "--batch-size", 3, "-j", workers, "--device", "cpu"
    )
    assert (code, printed) == (0, f"7 images predicted: {out}\n")
    assert rows_of(out) == expected_rows(model, images, 3)
    assert len({row["classes"][0] for row in rows_of(out)}) > 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("out.jsonl.", ".out"))]


def test_without_an_output_lines_are_printed(run_verb, model, images):
    code, printed, error = run_verb("predict", model, *images[:2], "--topk", 1, "-j", 0)
    expected = [
        f"{r['file_name']}: {r['classes'][0]}  {r['probabilities'][0]:.3f}" for r in expected_rows(model, images)
    ]
    assert (code, printed.splitlines(), error) == (0, expected[:2], "")


def test_names_on_standard_input(run_verb, model, images, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(images[3:5])))
    code, printed, _ = run_verb("predict", model, "-", "--topk", 1, "-j", 0)
    assert code == 0 and [line.partition(":")[0] for line in printed.splitlines()] == images[3:5]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_unreadable_images_are_named_counted_and_listed_and_nothing_else_is_lost(
    run_verb, model, images, tmp_path, suffix, require
):
    if suffix == "parquet":
        require("pyarrow")
    Path(images[1]).write_bytes(b"no image")
    Path(images[5]).write_bytes(Path(images[5]).read_bytes()[:80])
    out = tmp_path / f"out.{suffix}"
    code, printed, error = run_verb("predict", model, tmp_path / "images", "-o", out, "--batch-size", 2, "-j", 2)
    lines = error.splitlines()
    assert code == 1 and printed == f"5 images predicted: {out}\n"
    assert lines[0] == f"unreadable: {images[1]}: not an image that Pillow can read"
    assert lines[1].startswith(f"unreadable: {images[5]}: damaged or truncated")
    assert lines[2:] == ["2 of 7 images could not be read"]
    if suffix == "parquet":
        from pyarrow import parquet

        rows = parquet.read_table(out).to_pylist()
    elif suffix == "csv":
        with open(out, newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = rows_of(out)
    assert [row["file_name"] for row in rows] == images
    assert [bool(row.get("error")) for row in rows] == [number in (1, 5) for number in range(7)]
    classes = [row["class"] if suffix == "csv" else row["classes"][0] for row in rows if not row.get("error")]
    good = [path for number, path in enumerate(images) if number not in (1, 5)]
    assert classes == [row["classes"][0] for row in expected_rows(model, good)]


def test_thresholds_of_a_multi_label_model_and_of_the_command(run_verb, tiny_cfg, images, tmp_path):
    tiny_cfg.MODEL.CLSNET.HEAD = "sigmoid"
    net = build_model(tiny_cfg)
    net.head.linear.weight.data.normal_(std=30.0)
    model, out = str(tmp_path / "m.pth"), tmp_path / "out.jsonl"
    info = build_info(tiny_cfg, ["blue", "green", "red"]) | {"thresholds": {"score": 0.5, "classes": [0.0, 0.5, 1.0]}}
    write_checkpoint(model, {"model": net.state_dict(), "imgcls": info})
    run_verb("predict", model, *images, "-o", out, "-j", 0, "--topk", 3)
    for row in rows_of(out):
        probs = dict(zip(row["classes"], row["probabilities"], strict=True))
        assert row["above_threshold"] == [
            c for c in row["classes"] if probs[c] > {"blue": 0.0, "green": 0.5, "red": 1.0}[c]
        ]
    run_verb("predict", model, *images, "-o", out, "-j", 0, "--topk", 1, "--threshold", 0, "--force")
    assert all(len(row["above_threshold"]) == 3 and len(row["classes"]) == 1 for row in rows_of(out))


def test_a_threshold_for_a_softmax_model(run_verb, model, images, tmp_path):
    out = tmp_path / "out.csv"
    run_verb("predict", model, *images, "-o", out, "-j", 0, "--threshold", 0.5)
    for row in csv.DictReader(out.read_text().splitlines()):
        assert row["above_threshold"] == (row["class"] if float(row["probability"]) > 0.5 else "")


def test_boxes_of_detections(run_verb, model, images, tmp_path):
    boxes = [
        {"file_name": images[0], "bbox": [0, 0, 60, 50], "score": 0.9},
        {"file_name": images[1], "bbox": [9, 9, 20, 20]},
    ]
    (tmp_path / "d.json").write_text(json.dumps(boxes))
    out = tmp_path / "out.csv"
    run_verb("predict", model, tmp_path / "d.json", "-o", out, "-j", 0, "--margin", 0)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["box"] for row in rows] == ["0 0 60 50", "9 9 20 20"]
    assert rows[0]["class"] == expected_rows(model, images[:1])[0]["classes"][0]  # the whole image


def test_drawings(run_verb, model, images, tmp_path):
    Path(images[2]).write_bytes(b"")
    drawn = tmp_path / "drawn"
    code, *_ = run_verb("predict", model, *images[:4], "--save-images", drawn, "--batch-size", 2, "-j", 0)
    assert code == 1 and sorted(os.listdir(drawn)) == ["000000_0.jpg", "000001_1.jpg", "000003_3.jpg"]
    with Image.open(drawn / "000003_3.jpg") as image, Image.open(images[3]) as original:
        assert image.size[1] > 50 and image.width == 240
        shown = np.asarray(image.crop((90, 0, 150, 50)), int) - np.asarray(original, int)
    assert np.abs(shown).mean() < 25


def test_grad_cam_beside_what_the_network_saw(run_verb, model, images, tmp_path, require):
    require("captum")
    Path(images[0]).write_bytes(b"")
    drawn = tmp_path / "drawn"
    code, *_ = run_verb("predict", model, *images[:3], "--save-images", drawn, "--cam", "-j", 0, "--device", "cpu")
    assert code == 1 and sorted(os.listdir(drawn)) == ["000001_1.jpg", "000002_2.jpg"]
    with Image.open(drawn / "000002_2.jpg") as image:
        pixels = np.asarray(image, int)[:32, 88:152]  # 2 x 32 pixels in the middle of 240
    predictor = Predictor.from_checkpoint(model, "cpu")
    seen = predictor.crop_image(images[2]).permute(1, 2, 0).numpy()[:, :, ::-1]  # of a BGR network
    assert np.abs(pixels[:, :32] - seen).mean() < 25 < np.abs(pixels[:, 32:] - seen).mean()


SLOW_MODEL = """
import sys, time
from imgcls.inference.classifier import CheckpointClassifier
real = CheckpointClassifier.probabilities
def slow(self, images):
    time.sleep(0.5)
    return real(self, images)
CheckpointClassifier.probabilities = slow
from imgcls.cli.predict import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_call_resumes_and_writes_what_an_uninterrupted_one_does(
    run_verb, model, images, tmp_path, sent, code
):
    Path(images[0]).write_bytes(b"")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    arguments = [model, str(tmp_path / "images"), "--batch-size", "2", "-j", "1", "--device", "cpu"]
    run_verb("predict", *arguments, "-o", whole)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SLOW_MODEL, *arguments, "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = Path(f"{out}.partial")
    while not (journal.exists() and len(journal.read_bytes().splitlines()) >= 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and not out.exists()
    assert sent != signal.SIGINT or "--resume continues from" in error
    assert 3 <= len(journal.read_bytes().splitlines()) < 8
    refused, _, error = run_verb("predict", *arguments, "-o", out)
    assert refused == 2 and "is of an interrupted call; add --resume, or --force to start again" in error
    code, printed, error = run_verb("predict", *arguments, "-o", out, "--resume")
    assert code == 1 and printed == f"6 images predicted: {out}\n" and error.startswith(f"unreadable: {images[0]}")
    assert out.read_bytes() == whole.read_bytes() and not journal.exists()


def test_what_has_been_predicted_is_not_predicted_again(run_verb, model, images, tmp_path):
    from imgcls.disk import file_digest
    from imgcls.inference.journal import PredictionJournal

    out = tmp_path / "out.jsonl"
    settings = {"model": file_digest(model), "topk": 5, "threshold": None, "margin": 0.1}
    journal = PredictionJournal(str(out), settings)
    journal.start()
    journal.append([{"file_name": path, "classes": ["from before"], "probabilities": [1.0]} for path in images[:4]])
    journal.close()
    code, *_ = run_verb("predict", model, tmp_path / "images", "-o", out, "-j", 0, "--batch-size", 2, "--resume")
    rows = rows_of(out)
    assert code == 0 and [row["classes"] == ["from before"] for row in rows] == [True] * 4 + [False] * 3
    assert rows[4:] == expected_rows(model, images[4:], 2)


def test_an_existing_output_needs_force(run_verb, model, images, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("precious")
    code, _, error = run_verb("predict", model, *images, "-o", out, "-j", 0)
    assert (code, error) == (2, f"error: --output {out}: exists; add --force to replace it, or name another file\n")
    assert out.read_text() == "precious"
    code, *_ = run_verb("predict", model, *images, "-o", out, "-j", 0, "--force")
    assert code == 0 and out.read_text().startswith("file_name,class,probability,class_2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth", "0.png"], "missing.pth: no such checkpoint"),
        (["MODEL", "nothing/"], "nothing/: no such file, folder or dataset"),
        (["MODEL", "*.jpeg"], "*.jpeg: there is no image in it"),
        (["MODEL", "0.png", "--device", "cuda:77"], "device 'cuda:77' is not available"),
        (["MODEL", "0.png", "--topk", "0"], "topk is 0; allowed: a whole number from 1"),
        (["MODEL", "0.png", "--threshold", "2"], "threshold is 2.0; allowed: a probability"),
        (["MODEL", "0.png", "-o", "out.txt"], "--output out.txt: the name ends with .txt; allowed: .csv"),
        (["MODEL", "0.png", "-o", "no/out.csv"], "no/out.csv: cannot be written"),
        (["MODEL", "0.png", "-o", "new.csv", "--resume"], "there is no new.csv.partial of an interrupted call"),
        (["MODEL", "0.png", "--save-images", "0.png"], "--save-images 0.png: cannot be created"),
    ],
)
def test_mistakes_are_one_line(run_verb, model, images, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path / "images")
    code, printed, error = run_verb("predict", *[model if a == "MODEL" else a for a in arguments], "-j", "0")
    assert (code, printed) == (2, "") and message in error and error.count("\n") == 1
    assert error.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "--batch-size is 0; allowed: from 1"),
        (["--workers", "-1"], "--workers is -1; allowed: from 0"),
        (["--resume"], "--resume needs --output"),
        (["--cam"], "--cam needs --save-images"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(run_verb, arguments, message):
    code, _, error = run_verb("predict", "no.pth", "no.png", *arguments)
    assert code == 2 and message in error


def test_other_settings_are_refused_on_resume(run_verb, model, images, tmp_path):
    out = tmp_path / "out.csv"
    (tmp_path / "out.csv.partial").write_text('{"model": "other", "topk": 5, "threshold": null, "margin": 0.1}\n')
    code, _, error = run_verb("predict", model, *images, "-o", out, "-j", 0, "--resume")
    assert code == 2 and "was made with other settings (model was other and is now" in error
    assert not out.exists()


def test_the_script_of_the_checkout(model, images):
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "predict.py"), model, images[0], "--topk", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout.startswith(f"{images[0]}: ")
