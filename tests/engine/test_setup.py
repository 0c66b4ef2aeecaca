import csv
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.engine import default_argument_parser
from PIL import Image

from imgcls.data.dataset import Dataset
from imgcls.engine import Trainer, resolve_from_data
from imgcls.engine.resolve import positive_weights
from imgcls.engine.setup import choose_device, setup


@pytest.fixture
def parse(tiny_cfg, tmp_path):
    """Arguments with the tiny config's keys as overrides."""

    def make(*opts):
        path = tmp_path / "tiny.yaml"
        path.write_text(tiny_cfg.dump())
        return default_argument_parser().parse_args(["--config-file", str(path), *opts])

    return make


def configured(args):
    """The config of a run that is over at once."""
    with setup(args) as run:
        return run.cfg


def test_gives_a_checked_frozen_config_and_writes_it(parse, tmp_path):
    cfg = configured(parse("MODEL.CLSNET.NUM_CLASSES", "-1"))
    assert cfg.is_frozen() and cfg.MODEL.CLSNET.NUM_CLASSES == 3
    assert "NUM_CLASSES: 3" in (tmp_path / "output" / "config.yaml").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_falls_back_to_the_cpu_with_one_warning(tiny_cfg, caplog):
    tiny_cfg.MODEL.DEVICE = "cuda"
    with caplog.at_level(logging.WARNING, "imgcls"):
        choose_device(tiny_cfg, num_gpus=2)
    assert tiny_cfg.MODEL.DEVICE == "cpu"
    assert len(caplog.records) == 1 and "there is no GPU: running on the CPU (GPUs asked for: 2" in caplog.text


def test_mixed_precision_stays_on_on_the_cpu(parse):
    cfg = configured(parse("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "bfloat16"))
    assert cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu"


def test_a_run_without_a_seed_gets_one_and_its_resumption_the_same(parse, tmp_path):
    cfg = configured(parse("SEED", "-1"))
    assert cfg.SEED >= 0 and f"SEED: {cfg.SEED}" in (tmp_path / "output" / "config.yaml").read_text()
    trainer = Trainer(cfg)
    trainer.train()
    for resume in (True, str(tmp_path / "output"), str(tmp_path / "output" / "model_final.pth")):
        args = parse("SEED", "-1")
        args.resume = resume
        assert configured(args).SEED == cfg.SEED
    assert configured(parse("SEED", "-1")).SEED != cfg.SEED


def test_epochs_become_iterations(parse):
    cfg = configured(parse("SOLVER.EPOCHS", "5", "SOLVER.WARMUP_EPOCHS", "1", "SOLVER.STEP_EPOCHS", "(2, 4)"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS) == (15, 3, (6, 12)), "12 images, 4 a batch"
    cfg = configured(parse("SOLVER.EPOCHS", "5", "SOLVER.WARMUP_ITERS", "2"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (15, 2)


def test_epochs_are_for_classifiers(parse):
    with pytest.raises(ValueError, match=r"SOLVER\.EPOCHS is 3; allowed: 0, because a RetinaNet does not use this key"):
        setup(parse("MODEL.META_ARCHITECTURE", "RetinaNet", "SOLVER.EPOCHS", "3"))


def test_no_gpus_asked_for_is_the_cpu_without_a_warning(tiny_cfg, caplog):
    tiny_cfg.MODEL.DEVICE = "cuda"
    choose_device(tiny_cfg, num_gpus=0)
    assert tiny_cfg.MODEL.DEVICE == "cpu" and not caplog.records


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_used(tiny_cfg):
    tiny_cfg.MODEL.DEVICE = "cuda"
    choose_device(tiny_cfg, num_gpus=1)
    assert tiny_cfg.MODEL.DEVICE == "cuda"


def test_bad_values_are_found_before_anything_is_written(parse, tmp_path):
    with pytest.raises(ValueError, match="WIDTH_MULT"):
        setup(parse("MODEL.MNET.WIDTH_MULT", "0.0"))
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.TOPK", "[5]"], "TEST.TOPK"),
        (["MODEL.CLSNET.HEAD", "sigmoid", "MODEL.CLSNET.POS_WEIGHT", "[1.0]"], "HEAD"),
    ],
)
def test_what_only_the_data_can_tell_is_checked_before_training(parse, opts, message):
    with pytest.raises(ValueError, match=message):
        setup(parse("MODEL.CLSNET.NUM_CLASSES", "-1", *opts))


def test_output_folder_that_cannot_be_written(parse, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"OUTPUT_DIR .*file/sub: cannot be written to"):
        setup(parse("OUTPUT_DIR", str(tmp_path / "file" / "sub")))


def test_the_datasets_are_read_once_and_handed_over(parse):
    with setup(parse()) as run:
        assert [dataset.name for dataset in run.datasets.train] == list(run.cfg.DATASETS.TRAIN)
        trainer = Trainer(run.cfg, run.datasets)
        assert trainer.datasets is run.datasets


def test_an_evaluation_leaves_the_config_of_the_run_alone(parse, tmp_path):
    with setup(parse("SOLVER.MAX_ITER", "7")):
        pass
    args = parse("SOLVER.MAX_ITER", "1")
    args.eval_only = True
    with setup(args):
        pass
    assert "MAX_ITER: 7" in (tmp_path / "output" / "config.yaml").read_text()
    assert "MAX_ITER: 1" in (tmp_path / "output" / "inference" / "config.yaml").read_text()


def test_a_second_run_in_the_same_folder_is_refused_and_changes_nothing(parse, tmp_path):
    with setup(parse("SOLVER.MAX_ITER", "7")):
        # Not ".lock": POSIX drops a lock when its own process closes the file.
        names = ["config.yaml", "log.txt"]
        before = [(tmp_path / "output" / name).read_bytes() for name in names]
        script = str(Path(__file__).parents[2] / "train_net_builtin.py")
        command = [sys.executable, script, "--num-gpus", "0", "--config-file", str(tmp_path / "tiny.yaml")]
        second = subprocess.run([*command, "SOLVER.MAX_ITER", "1"], capture_output=True, text=True)
        assert second.returncode == 2 and f"{tmp_path / 'output'}" in second.stderr.splitlines()[-1]
        assert [(tmp_path / "output" / name).read_bytes() for name in names] == before
    configured(parse("SOLVER.MAX_ITER", "1"))


def test_the_log_file_has_no_colours(parse, tmp_path):
    configured(parse())
    text = (tmp_path / "output" / "log.txt").read_text()
    assert "Running with full config" in text and "MAX_ITER: 3" in text and "\x1b[" not in text


def test_a_metric_that_no_evaluation_gives_is_refused_before_training(parse):
    with pytest.raises(ValueError, match=r"TEST\.BEST_METRIC is 'top1'.*accuracy/top1"):
        setup(parse("TEST.BEST_METRIC", "top1"))


@pytest.fixture
def multi_label_cfg(tiny_cfg, tmp_path):
    """Four images: class a on three of them, b on one, c on none."""
    rows = [("0.png", "a;b"), ("1.png", "a"), ("2.png", "a"), ("3.png", "")]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "labels"), *rows])
    for name, _ in rows:
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST = (f"csv:{tmp_path / 'labels.csv'}",), ()
    tiny_cfg.MODEL.CLSNET.HEAD, tiny_cfg.MODEL.CLSNET.NUM_CLASSES = "sigmoid", -1
    return tiny_cfg


def test_class_count_comes_from_the_data(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.NUM_CLASSES = -1
    resolve_from_data(tiny_cfg)
    assert tiny_cfg.MODEL.CLSNET.NUM_CLASSES == 3


def test_class_count_is_checked(tiny_cfg):
    tiny_cfg.MODEL.CLSNET.NUM_CLASSES = 4
    with pytest.raises(ValueError, match=r"NUM_CLASSES.*-1"):
        resolve_from_data(tiny_cfg)


def test_head_must_fit_the_labels(tiny_cfg, multi_label_cfg):
    multi_label_cfg.MODEL.CLSNET.HEAD = "softmax"
    with pytest.raises(ValueError, match=r"MODEL\.CLSNET\.HEAD"):
        resolve_from_data(multi_label_cfg)


def test_pos_weight_auto_is_negatives_over_positives_and_is_logged(multi_label_cfg, caplog):
    multi_label_cfg.MODEL.CLSNET.POS_WEIGHT = "auto"
    with caplog.at_level(logging.INFO, "imgcls"):
        resolve_from_data(multi_label_cfg)
    assert multi_label_cfg.MODEL.CLSNET.NUM_CLASSES == 2
    assert [pytest.approx(1 / 3, abs=1e-4), 3.0] == multi_label_cfg.MODEL.CLSNET.POS_WEIGHT
    assert "POS_WEIGHT from the training set" in caplog.text
    assert "POS_WEIGHT:\n    - 0.3333\n    - 3.0" in multi_label_cfg.dump()  # what a checkpoint keeps


def test_class_without_a_positive_weighs_one_and_is_named(caplog):
    records = [{"labels": [0]}, {"labels": [0]}]
    dataset = Dataset(name="d", records=records, classes=["always", "never"], multi_label=True, source="s")
    with caplog.at_level(logging.WARNING, "imgcls"):
        assert positive_weights([dataset]) == [0.25, 1.0]
    assert "never" in caplog.text


def test_no_training_set_is_refused(tiny_cfg):
    tiny_cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN names no set"):
        resolve_from_data(tiny_cfg)
