import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from imgcls.data.catalog import read_datasets
from imgcls.engine.resolve import hold_out
from imgcls.engine.summary import data_warnings, describe_run, log_summary
from imgcls.modeling import ClsNet


class OnlyLogits(torch.nn.Module):
    """What fvcore can trace."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.logits(images)


def read(cfg):
    return read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)


def test_the_first_lines_of_a_run(tiny_cfg):
    model = ClsNet(tiny_cfg)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    lines = dict(describe_run(tiny_cfg, read(tiny_cfg), model))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    macs = FlopCountAnalysis(OnlyLogits(model.eval()), torch.zeros(1, 3, 32, 32)).by_operator()
    assert lines == {
        "data": "3 classes, 12 training images (smallest class red: 4, largest blue: 4), 5 test images",
        "network": f"build_mnetv1_backbone, softmax head, {parameters:,} parameters, "
        f"{(macs['conv'] + macs['linear']) / 1e6:.1f} million multiply-accumulates for an image of 32 x 32 pixels",
        "weights": "none: training from scratch (MODEL.WEIGHTS starts from other weights)",
        "schedule": "3 iterations of 4 images, 1.0 epochs; WarmupMultiStepLR, learning rate 0.05",
        "device": "cpu, 1 process with 0 loader workers each",
        "output": tiny_cfg.OUTPUT_DIR,
    }
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_nothing_is_compiled_for_the_summary(tiny_cfg):
    tiny_cfg.MODEL.COMPILE = True
    model = ClsNet(tiny_cfg).train()
    before = torch._dynamo.utils.counters["stats"]["calls_captured"]
    describe_run(tiny_cfg, read(tiny_cfg), model)
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] == before
    assert model.training and model.backbone.training


def test_what_is_held_out_is_told(tiny_cfg):
    tiny_cfg.merge_from_list(
        ["DATASETS.TEST", (), "DATASETS.VAL_FRACTION", 0.25, "MODEL.WEIGHTS", "a.pth", "SOLVER.HEAD_ONLY_EPOCHS", 2,
         "SOLVER.BACKBONE_MULTIPLIER", 0.1]
    )  # fmt: skip
    hold_out(tiny_cfg)
    lines = dict(describe_run(tiny_cfg, read(tiny_cfg), ClsNet(tiny_cfg)))
    assert lines["data"].startswith("3 classes, 9 training images") and lines["data"].endswith(
        ", 3 held out for evaluation"
    )
    assert lines["weights"] == "a.pth"
    assert lines["schedule"].endswith("; only the head for 2 epochs; backbone at 0.1 of it")
    assert dict(describe_run(tiny_cfg, read(tiny_cfg), ClsNet(tiny_cfg), 7))["weights"] == "resumed at iteration 7"


def warnings_for(cfg, tmp_path, write_folder, counts, *opts, test=()):
    name = f"folder:{write_folder(tmp_path / 'data', counts)}"
    cfg.merge_from_list(["DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,) if test else (), *opts])
    return data_warnings(cfg, read(cfg))


def test_no_warning_without_a_reason(tiny_cfg, tmp_path, write_folder):
    assert warnings_for(tiny_cfg, tmp_path, write_folder, {"a": 5, "b": 49}) == []


@pytest.mark.parametrize(
    ("counts", "opts", "test", "expected"),
    [
        ({"a": 4, "b": 9}, (), False, "1 of 2 classes have fewer than 5 training images (a: 4)"),
        ({"a": 9}, (), False, "there is only one class, a: every prediction will be right; add another class"),
        ({"a": 5, "b": 5}, (), True, "is in DATASETS.TRAIN and DATASETS.TEST, so its metrics say nothing about other"),
        ({"a": 5, "b": 5}, ("SOLVER.IMS_PER_BATCH", 16), False, "SOLVER.IMS_PER_BATCH 16 is more than the 10 training"),
        ({"a": 5, "b": 50}, (), False, "unbalanced: b has 50 images and a 5; TEST.BEST_METRIC accuracy/balanced selec"),
    ],
)
def test_warnings_about_the_data(tiny_cfg, tmp_path, write_folder, counts, opts, test, expected):
    (warning,) = warnings_for(tiny_cfg, tmp_path, write_folder, counts, *opts, test=test)
    assert expected in warning and "\n" not in warning


def test_a_key_that_is_set_is_not_proposed(tiny_cfg, tmp_path, write_folder):
    opts = ("TEST.BEST_METRIC", "accuracy/balanced")
    assert warnings_for(tiny_cfg, tmp_path, write_folder, {"a": 5, "b": 50}, *opts) == []


def test_is_logged_on_the_main_process(tiny_cfg, caplog):
    caplog.set_level("INFO", logger="imgcls")
    log_summary(tiny_cfg, read(tiny_cfg), ClsNet(tiny_cfg))
    assert caplog.messages[0].startswith("3 of 3 classes have fewer than 5 training images")
    assert "\n  network   build_mnetv1_backbone" in caplog.messages[-1]
