"""The command, from a checkpoint that training wrote to a file that a detector takes."""

import pytest

from imgcls.checkpoint import verify_backbone
from imgcls.config import load_cfg
from imgcls.engine import Trainer, resolve_from_data

DETECTOR = "configs/COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml"
SAME = ["MODEL.MNET.BLOCKS", "[1, 1, 1, 1, 1]", "MODEL.PIXEL_STD", "[57., 57., 57.]"]


@pytest.fixture
def trained(tiny_cfg, tmp_path, monkeypatch, request):
    """The last checkpoint of three iterations."""
    monkeypatch.chdir(request.config.rootpath)
    resolve_from_data(tiny_cfg)
    tiny_cfg.DATASETS.TEST = ()
    Trainer(tiny_cfg).train()
    return tmp_path / "output" / "model_final.pth"


def test_proves_and_writes(trained, tmp_path, run_script):
    target = tmp_path / "a backbone.pth"
    code, error = run_script("tools/export_backbone.py", trained, target, "--verify", DETECTOR, *SAME)
    assert (code, error) == (0, "")
    # A stem and five blocks of two convolutions, each with a weight and four tensors of its norm.
    assert verify_backbone(str(target), load_cfg(DETECTOR, SAME)).summary() == "55/55 backbone tensors loaded"


def test_what_does_not_fit_is_listed_and_nothing_is_written(trained, tmp_path, run_script):
    target = tmp_path / "backbone.pth"
    code, error = run_script("tools/export_backbone.py", trained, target, "--verify", DETECTOR, *SAME[2:])
    *listed, last = error.splitlines()
    assert code == 2 and not target.exists()
    assert "stages.mob3.1.depthwise.weight is missing in the file" in listed
    assert last.startswith(f"error: {target} does not fit") and 'MODEL.MNET.BLOCKS "[1, 1, 1, 1, 1]"' in last


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.pth", "b.pth"], "gone.pth: no such checkpoint"),
        (["gone.pth", "b.pth", "--verify", "gone.yaml"], "gone.yaml: no such file"),
        (
            ["gone.pth", "b.pth", "--verify", DETECTOR, "MODEL.MNET.WIDHT_MULT", "1"],
            "did you mean MODEL.MNET.WIDTH_MULT?",
        ),
    ],
)
def test_mistakes_are_one_line(run_script, monkeypatch, request, args, message):
    monkeypatch.chdir(request.config.rootpath)
    code, error = run_script("tools/export_backbone.py", *args)
    assert code == 2 and message in error and len(error.splitlines()) == 1
