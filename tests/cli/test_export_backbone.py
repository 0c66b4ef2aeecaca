"""The command, from a checkpoint that training wrote to a file that a detector takes."""

import hashlib
import json
import re
from functools import partial

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.structures import BoxMode

from imgcls.checkpoint import read_checkpoint, verify_backbone
from imgcls.config import add_imgcls_config, load_cfg
from imgcls.engine import Trainer, resolve_from_data
from imgcls.errors import UserError
from imgcls.report import write_report

DETECTOR = "configs/COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml"
SAME = ["MODEL.MNET.BLOCKS", "[1, 1, 1, 1, 1]", "MODEL.PIXEL_STD", "[57., 57., 57.]"]


@pytest.fixture
def run(run_verb, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    return partial(run_verb, "export-backbone")


@pytest.fixture
def trained(tiny_cfg, tmp_path):
    """The last checkpoint of three iterations."""
    resolve_from_data(tiny_cfg)
    tiny_cfg.DATASETS.TEST = ()
    Trainer(tiny_cfg).train()
    return tmp_path / "output" / "model_final.pth"


def test_proves_and_writes(trained, tmp_path, run):
    target = tmp_path / "a backbone.pth"
    # A stem and five blocks of two convolutions, each with a weight and four tensors of its norm.
    said = "55/55 backbone tensors loaded"
    assert run(trained, target, "--verify", DETECTOR, *SAME) == (0, f"{said}, classifier dropped\n", "")
    assert verify_backbone(str(target), load_cfg(DETECTOR, SAME)).summary() == said


def test_the_report_shows_what_was_compared(trained, tiny_cfg, tmp_path, run):
    (trained.parent / "config.yaml").write_text(tiny_cfg.dump())
    target = tmp_path / "a backbone.pth"
    assert run(trained, target)[0] == 0 and not (trained.parent / "handoff.json").exists(), "nothing was compared"
    assert run(trained, target, "--verify", DETECTOR, *SAME)[0] == 0
    proof = json.loads((trained.parent / "handoff.json").read_text())
    assert (proof["tensors"], proof["left_out"]) == (55, 0)
    page = write_report(trained.parent).page.read_text()
    for shown in (str(target), hashlib.sha256(target.read_bytes()).hexdigest(), "RetinaNet", "55, all bits are equal"):
        assert shown in page
    assert "of earlier weights" not in page
    with trained.open("ab") as file:
        file.write(b"other")
    assert "this hand-off was of earlier weights" in write_report(trained.parent).page.read_text()
    (trained.parent / "handoff.json").write_text("{}")
    with pytest.raises(UserError, match=r"handoff\.json: damaged; remove it"):
        write_report(trained.parent)


def test_a_checkpoint_outside_a_run_or_in_a_folder_that_cannot_be_written(trained, tiny_cfg, tmp_path, run, caplog):
    target = tmp_path / "backbone.pth"
    assert run(trained, target, "--verify", DETECTOR, *SAME)[0] == 0
    assert not (trained.parent / "handoff.json").exists(), "the folder has no config.yaml"
    (trained.parent / "config.yaml").write_text(tiny_cfg.dump())
    (trained.parent / "handoff.json").mkdir()
    assert run(trained, target, "--verify", DETECTOR, *SAME)[0] == 0
    assert "the report will not show this hand-off" in caplog.text


def test_writes_without_a_detector(trained, tmp_path, run):
    target = tmp_path / "backbone.pth"
    assert run(trained, target) == (0, "55 backbone tensors written, classifier dropped\n", "")
    assert verify_backbone(str(target), load_cfg(DETECTOR, SAME)).complete


@pytest.fixture
def one_box(tmp_path):
    """A detection set of one image."""
    box = {"bbox": [2, 2, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {"file_name": str(tmp_path / "train" / "red" / "0.png"), "image_id": 0, "width": 40, "height": 30}
    DatasetCatalog.register("one_box", lambda: [{**record, "annotations": [box]}])
    MetadataCatalog.get("one_box").thing_classes = ["thing"]
    yield "one_box"
    DatasetCatalog.remove("one_box")
    MetadataCatalog.remove("one_box")


def test_a_script_that_is_not_ours_trains_a_detector_on_it(trained, tmp_path, run, one_box):
    """detectron2's config, trainer and checkpointer, and ``add_imgcls_config``."""
    target = str(tmp_path / "backbone.pth")
    run(trained, target)
    cfg = get_cfg()
    add_imgcls_config(cfg)
    cfg.merge_from_file(DETECTOR)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", target, "DATASETS.TRAIN", (one_box,), "DATASETS.TEST", (), *SAME,
         "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 1, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", (),
         "SOLVER.WARMUP_ITERS", 0, "INPUT.MIN_SIZE_TRAIN", (64,), "OUTPUT_DIR", str(tmp_path)]
    )  # fmt: skip
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    here, there = trainer.model.backbone.bottom_up.state_dict(), read_checkpoint(target)["model"]
    assert len(there) == 55 and all(torch.equal(here[name], tensor) for name, tensor in there.items())
    trainer.train()
    assert trainer.iter == 1
    cfg.INPUT.FORMAT = "RGB"
    with pytest.raises(ValueError, match=r"backbone\.pth does not fit the config.*INPUT\.FORMAT \"BGR\""):
        DefaultTrainer(cfg)


def test_what_does_not_fit_is_listed_and_nothing_is_written(trained, tmp_path, run):
    target = tmp_path / "backbone.pth"
    code, out, error = run(trained, target, "--verify", DETECTOR, *SAME[2:])
    *listed, last = error.splitlines()
    assert (code, out) == (2, "") and not target.exists()
    assert listed[0] == "stages.mob2.2.depthwise.weight is missing in the file"
    assert len(listed) == 11 and re.fullmatch(r"\.\.\. and \d\d more", listed[-1])
    assert last.startswith(f"error: {trained} does not fit") and 'MODEL.MNET.BLOCKS "[1, 1, 1, 1, 1]"' in last


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["INPUT.FORMAT", "RGB"],
            'INPUT.FORMAT is BGR in the checkpoint, RGB in the config; to use it set INPUT.FORMAT "BGR"',
        ),
        (["MODEL.MNET.OUT_FEATURES", "['mob4', 'mob5']"], "the backbone gives ['mob4', 'mob5']"),
        (["MODEL.FPN.IN_FEATURES", "['mob3', 'mob5']"], "with strides [8, 32]; an FPN needs features in order"),
        (["MODEL.BACKBONE.FREEZE_AT", "6"], "MODEL.BACKBONE.FREEZE_AT is 6; allowed: 0 (nothing) to 5"),
    ],
)
def test_a_detector_that_it_cannot_serve_is_one_line(trained, tmp_path, run, changes, message):
    code, _, error = run(trained, tmp_path / "b.pth", "--verify", DETECTOR, *SAME, *changes)
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "b.pth").exists()


def test_a_source_that_is_no_classifier_is_one_line(trained, tmp_path, run):
    run(trained, tmp_path / "backbone.pth")
    torch.save(
        {"model": build_model(load_cfg(DETECTOR, ["MODEL.DEVICE", "cpu"])).state_dict()}, tmp_path / "detector.pth"
    )
    (tmp_path / "short.pth").write_bytes(trained.read_bytes()[:20000])
    torch.save({"model": {}, "args": partial(int)}, tmp_path / "pickle.pth")
    for name, message in {
        "backbone.pth": "is already a backbone checkpoint",
        "detector.pth": "is a detector's checkpoint; give a classifier's",
        "short.pth": "is truncated or not a checkpoint",
        "pickle.pth": "holds Python objects beside tensors",
    }.items():
        code, _, error = run(tmp_path / name, tmp_path / "b.pth", "--verify", DETECTOR, *SAME)
        assert code == 2 and message in error and len(error.splitlines()) == 1
        assert not (tmp_path / "b.pth").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.pth", "b.pth"], "gone.pth: no such checkpoint"),
        (["gone.pth", "b.pth", "--verify", "gone.yaml"], "gone.yaml: no such file"),
        (
            ["gone.pth", "b.pth", DETECTOR],
            f"{DETECTOR}: settings for a detector's config; name it with --verify CONFIG",
        ),
        (
            ["gone.pth", "b.pth", "--verify", DETECTOR, "MODEL.MNET.WIDHT_MULT", "1"],
            "did you mean MODEL.MNET.WIDTH_MULT?",
        ),
        (
            ["gone.pth", "b.pth", "--verify", DETECTOR, "MODEL.BACKBONE.NAME", "build_mnetv1_fpn"],
            "did you mean build_mnetv1_fpn_backbone?",
        ),
    ],
)
def test_mistakes_are_one_line(run, args, message):
    code, _, error = run(*args)
    assert code == 2 and message in error and len(error.splitlines()) == 1
