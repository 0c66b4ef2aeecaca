"""Grad-CAM in the report: the right network, the right classes, and what the page says where there is none."""

import sys
from pathlib import Path

import pytest
import torch

from imgcls.checkpoint import read_checkpoint, write_checkpoint
from imgcls.engine import Trainer, resolve_from_data
from imgcls.inference import Predictor
from imgcls.report import write_report
from imgcls.report.gallery import read_multi_label, read_single_label, to_data_uri
from imgcls.report.heat_maps import ShownImage, draw_heat_maps
from imgcls.report.run_files import find_results


@pytest.fixture
def run(tiny_cfg, tmp_path, require) -> Path:
    """A finished run, with a checkpoint before that of its last evaluation."""
    require("captum")
    tiny_cfg.SOLVER.CHECKPOINT_PERIOD, tiny_cfg.SOLVER.EMA_DECAY = 1, 0.5
    tiny_cfg.TEST.SAVE_PROBABILITIES = True
    resolve_from_data(tiny_cfg)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "config.yaml").write_text(tiny_cfg.dump())
    Trainer(tiny_cfg).train()
    return tmp_path / "output"


def shown_images(run: Path, name: str = "") -> list[ShownImage]:
    (results,) = [results for results in find_results(run) if results.name == name]
    predictions = read_single_label(results.read_predictions(), results.classes, results.read_probabilities())
    return [ShownImage(image, {"file_name": image.file_name}, image.mistaken) for image in predictions]


def change_weights(path: Path) -> None:
    checkpoint = read_checkpoint(str(path))
    for state in (checkpoint["model"], checkpoint["ema"]):
        for key, value in state.items():
            if "head.linear.weight" in key:
                state[key] = value + torch.linspace(-1, 1, value.numel()).view_as(value)
    write_checkpoint(str(path), checkpoint)


def test_an_overlay_is_the_map_of_the_image_and_class(run):
    from imgcls.inference.cam import GradCam, overlay

    shown = shown_images(run)
    maps = draw_heat_maps(run, shown, averaged=False)
    assert maps.note.startswith("Grad-CAM, by model_final.pth")
    checkpoint = read_checkpoint(str(run / "model_final.pth"))
    del checkpoint["ema"]
    write_checkpoint(str(run / "raw.pth"), checkpoint)
    predictor = Predictor.from_checkpoint(run / "raw.pth", "cpu")
    assert {row for row, _ in maps.uris} == set(range(5))
    for image in shown:
        crop = predictor.crop_image(image.prediction.file_name)
        for name in image.classes:
            heat = GradCam(predictor.classifier)(crop[None], [predictor.info.classes.index(name)])[0]
            expected = to_data_uri(overlay(crop.permute(1, 2, 0).numpy()[:, :, ::-1], heat))
            assert maps.uris[image.prediction.row, name] == expected


def test_averaged_weights_explain_their_own_predictions(run, monkeypatch):
    import imgcls.inference as inference

    loaded = []
    original = inference.load_checkpoint_classifier
    monkeypatch.setattr(
        inference, "load_checkpoint_classifier", lambda *args, raw: loaded.append(raw) or original(*args, raw=raw)
    )
    page = write_report(run).page.read_text()
    assert loaded == [True, False], "the results in inference/, then those in inference/ema"
    assert "Without Grad-CAM" not in page and page.count('value="1"> Grad-CAM of the') >= 2


def test_the_checkpoint_is_the_one_that_gives_the_scores(run):
    shown = shown_images(run)
    change_weights(run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_0000002.pth")
    maps = draw_heat_maps(run, shown, averaged=False)
    assert "by model_0000002.pth" in maps.note and len(maps.uris) >= 5
    change_weights(run / "model_0000002.pth")
    change_weights(run / "model_best.pth")
    maps = draw_heat_maps(run, shown, averaged=False)
    assert maps.uris == {} and "other weights than those that were evaluated" in maps.note


@pytest.mark.parametrize("damage", ["captum", "truncated", "none", "foreign"])
def test_whatever_prevents_it_is_one_line_and_the_report_is_there(run, damage, monkeypatch):
    if damage == "captum":
        monkeypatch.setitem(sys.modules, "captum.attr", None)
        expected = "Grad-CAM needs captum: pip install -e &quot;.[cam]&quot;"
    elif damage == "truncated":
        (run / "model_final.pth").write_bytes((run / "model_final.pth").read_bytes()[:500])
        expected = "model_final.pth is truncated"
    elif damage == "none":
        for path in (*run.glob("*.pth"), run / "last_checkpoint"):
            path.unlink()
        expected = "has no checkpoint"
    else:
        write_checkpoint(str(run / "model_final.pth"), {"model": {"roi_heads.x": torch.zeros(1)}})
        expected = "model_final.pth is a"
    page = write_report(run).page.read_text()
    assert "Without Grad-CAM overlays: " in page and expected in page
    assert 'class="view1"' not in page and "Most doubtful" in page and 'type="radio"' not in page


def test_an_error_of_any_kind_costs_the_overlays_only(run, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("imgcls.inference.load_checkpoint_classifier", fail)
    assert "Without Grad-CAM overlays: RuntimeError: out of memory" in write_report(run).page.read_text()


def test_an_image_that_is_gone_has_none_and_the_others_do(run, tmp_path):
    shown = shown_images(run)
    Path(shown[0].prediction.file_name).unlink()
    maps = draw_heat_maps(run, shown, averaged=False)
    assert {row for row, _ in maps.uris} == {1, 2, 3, 4}


def test_the_classes_to_explain_with_a_sigmoid_head():
    rows = [
        {"labels": "a;b", "label_scores": "0.9;0.1", "pred": "a;c", "pred_scores": "0.9;0.6"},
        {"labels": "a", "label_scores": "0.55", "pred": "a", "pred_scores": "0.55"},
        {"labels": "", "label_scores": "", "pred": "", "pred_scores": ""},
    ]
    rows = [{"image_id": "0", "file_name": "x", **row} for row in rows]
    first, second, third = read_multi_label(rows, 0.5)
    assert (first.mistaken, first.undecided) == (["b"], ["c"]), "b was missed by 0.9, c is 0.1 above the threshold"
    assert first.wrong == 0.9 and first.doubt == pytest.approx(0.9)
    assert (second.mistaken, second.undecided) == ([], ["a"])
    assert (third.mistaken, third.undecided, third.wrong, third.doubt) == ([], [], 0.0, 0.0)


def test_a_set_without_images_to_show_needs_no_network(tmp_path):
    assert draw_heat_maps(tmp_path, [], averaged=False).note == ""
