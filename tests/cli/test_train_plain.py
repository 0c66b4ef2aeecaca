"""`imgcls train-plain`: its flags, a run from real images to results, and the mistakes that users make."""

import json
import sys

import pytest
import torch

from imgcls.checkpoint import load_backbone
from imgcls.cli import train
from imgcls.cli.train_plain import parse_args
from imgcls.config import load_cfg
from imgcls.engine import Trainer


@pytest.fixture
def data(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "my data" / split).mkdir(parents=True)
    return tmp_path / "my data"


def load(*argv):
    return load_cfg("", parse_args(["--config-file", "x", *map(str, argv)]).opts)


def test_every_flag_that_has_a_key_sets_it():
    cfg = load(
        "-j", 3, "--epochs", 4, "-b", 64, "--lr", 1, "--momentum", 0.8, "--wd", "1e-5", "-p", 7, "--seed", 11,
        "--gpu", 2,
    )  # fmt: skip
    assert (cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.EPOCHS, cfg.SOLVER.IMS_PER_BATCH) == (3, 4, 64)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY) == (1.0, 0.8, 1e-5)
    assert (cfg.SOLVER.LOG_PERIOD, cfg.SEED, cfg.MODEL.DEVICE) == (7, 11, "cuda:2")
    long = load("--workers", 3, "--batch-size", 64, "--weight-decay", 0.1, "--print-freq", 7, "--learning-rate", 0.5)
    assert (long.DATALOADER.NUM_WORKERS, long.SOLVER.LOG_PERIOD, long.SOLVER.BASE_LR) == (3, 7, 0.5)


def test_a_flag_that_is_not_given_leaves_the_config_alone():
    assert parse_args(["--config-file", "x"]).opts == []


def test_both_commands_allow_pickles_only_on_request():
    for parse in (parse_args, train.parse_args):
        assert not parse(["--config-file", "a.yaml"]).allow_pickle
        assert parse(["--config-file", "a.yaml", "--allow-pickle"]).allow_pickle


def test_both_commands_take_a_config_without_its_flag():
    for parse in (parse_args, train.parse_args):
        args = parse(["own_images.yaml", "SEED", "3"])
        assert (args.config_file, args.opts) == ("own_images.yaml", ["SEED", "3"])
    with pytest.raises(ValueError, match="--config-file is missing; give a YAML file"):
        parse_args(["SEED", "3"])


def test_a_flag_wins_over_a_key_and_a_key_over_the_folder(data):
    cfg = load(data, "SOLVER.BASE_LR", 0.5, "DATASETS.TEST", "('digits_test',)", "--lr", 0.25)
    assert cfg.SOLVER.BASE_LR == 0.25 and cfg.DATASETS.TEST == ("digits_test",)
    assert list(cfg.DATASETS.TRAIN) == [f"folder:{data}/train"]


@pytest.mark.parametrize("order", [("{data}", "SEED", "-1", "-b", "8"), ("-b", "8", "{data}", "SEED", "-1")])
def test_flags_may_stand_before_and_after_the_folder(data, order):
    cfg = load(*(part.format(data=data) for part in order))
    assert cfg.SEED == -1 and cfg.SOLVER.IMS_PER_BATCH == 8 and list(cfg.DATASETS.TEST) == [f"folder:{data}/val"]


def test_the_folders_of_imagenet_come_first(data):
    for split in ("train", "val"):
        (data / f"ILSVRC2012_img_{split}").mkdir()
    assert list(load(data).DATASETS.TEST) == [f"folder:{data}/ILSVRC2012_img_val"]


def test_evaluation_scores_the_checkpoint_that_resume_names(tmp_path):
    cfg = load("-e", "--resume", tmp_path / "a.pth")
    assert cfg.MODEL.WEIGHTS.endswith("/a.pth")
    args = parse_args(["--config-file", "x", "--resume", "a.pth"])
    assert args.opts == [] and args.resume == "a.pth" and not args.eval_only


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gpu", "0", "--multiprocessing-distributed"], "--gpu selects one GPU"),
        (["nowhere"], "nowhere: DATA_DIR must hold the folders train and val"),
    ],
)
def test_refuses(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_args(["--config-file", "x", *argv])


@pytest.fixture
def images(tmp_path, write_folder):
    write_folder(tmp_path / "data" / "train", {"blue": 4, "green": 4, "red": 4})
    write_folder(tmp_path / "data" / "val", {"blue": 2, "green": 2, "red": 1})
    return tmp_path / "data"


@pytest.fixture
def config(tiny_cfg, tmp_path):
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = ()
    tiny_cfg.TEST.TOPK = (1, 2)
    (tmp_path / "tiny.yaml").write_text(tiny_cfg.dump())
    return tmp_path / "tiny.yaml"


@pytest.fixture
def run(run_verb, config, images):
    """``run("--epochs", 1)`` on the tiny config, on the CPU: exit code and stderr."""
    return lambda *args: run_verb("train-plain", "--config-file", config, images, *args)[::2]


def read(path):
    return torch.load(path, weights_only=True)


def top1(tmp_path):
    return json.loads((tmp_path / "output" / "inference" / "accuracy.json").read_text())["metrics"]["top1"]


def test_train_evaluate_and_resume(run, tmp_path):
    assert run("--epochs", 2, "-p", 2)[0] == 0
    output = tmp_path / "output"
    trained = top1(tmp_path)
    assert read(output / "checkpoint.pth")["iteration"] == 5 == read(output / "model_0000005.pth")["iteration"]
    assert (output / "model_best.pth").exists()
    log = (output / "log.txt").read_text()
    assert (
        "Epoch [0][2/3]" in log and "Epoch [1][3/3]" in log and "train/top2" in log and "images/s  left 0:00:00" in log
    )
    (output / "inference" / "accuracy.json").unlink()
    assert run("-e", "--resume", output / "checkpoint.pth")[0] == 0
    assert top1(tmp_path) == trained
    assert run("--epochs", 3, "--resume", output)[0] == 0
    assert read(output / "checkpoint.pth")["iteration"] == 8
    assert "SOLVER.EPOCHS" in (output / "log.txt").read_text(), "a changed schedule is named"


def test_epochs_and_iterations_of_the_same_length_are_the_same_run(run, tmp_path):
    assert (
        run("--epochs", 4, "SOLVER.WARMUP_EPOCHS", 1, "SOLVER.STEP_EPOCHS", "(2,)", "OUTPUT_DIR", tmp_path / "a")[0]
        == 0
    )
    same = ["SOLVER.MAX_ITER", 12, "SOLVER.WARMUP_ITERS", 3, "SOLVER.STEPS", "(6,)"]
    assert run(*same, "OUTPUT_DIR", tmp_path / "b")[0] == 0
    one, other = read(tmp_path / "a" / "checkpoint.pth"), read(tmp_path / "b" / "checkpoint.pth")
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())


def test_start_epoch_begins_there_in_schedule_and_data(run, tmp_path):
    assert run("--epochs", 3, "--start-epoch", 2, "-p", 1)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "output" / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [6, 7, 8]


def test_its_checkpoint_is_exported_and_loads_into_a_backbone(run, run_verb, config, tmp_path):
    assert run("--epochs", 1, "SOLVER.EMA_DECAY", 0.5)[0] == 0
    target = tmp_path / "backbone.pth"
    assert run_verb("export-backbone", tmp_path / "output" / "checkpoint.pth", target)[0] == 0
    report = load_backbone(Trainer.build_model(load_cfg(str(config))), str(target))
    assert report.complete
    averaged = read(tmp_path / "output" / "checkpoint.pth")["ema"]["module.backbone.stages.stem.weight"]
    assert torch.equal(read(target)["model"]["stages.stem.weight"], averaged)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resume", "nowhere.pth"], "nowhere.pth"),
        (["-e"], "without weights would score random numbers"),
        (["--pretrained"], "MODEL.WEIGHTS is empty"),
        (["SOLVER.EPOCH", "3"], "did you mean SOLVER.EPOCHS"),
        (["-b", "5", "SOLVER.ACCUM_STEPS", "2"], "SOLVER.IMS_PER_BATCH is 5 on 1 processes with SOLVER.ACCUM_STEPS 2"),
        (
            ["TEST.BEST_METRIC", "top1", "--epochs", "1"],
            "TEST.BEST_METRIC is 'top1'; allowed: \"\", or one of accuracy/top1",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, args, message):
    code, err = run(*args)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0]


def test_a_missing_checkpoint_is_named_before_anything_is_set_up(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["imgcls.engine.setup"], "resolve_from_data", lambda cfg: pytest.fail("too late"))
    code, error = run("--resume", tmp_path / "nowhere.pth")
    assert code == 2 and f"error: --resume {tmp_path / 'nowhere.pth'}: no such checkpoint" in error
    assert not (tmp_path / "output").exists()


def test_a_requeued_run_without_any_checkpoint_starts_again(run, tmp_path):
    """Its folder does not exist yet."""
    assert run("--epochs", 1, "--resume", tmp_path / "output" / ".")[0] == 0
    assert read(tmp_path / "output" / "checkpoint.pth")["iteration"] == 2


def test_patience_ends_the_run_and_its_resumption(run, tmp_path):
    """The learning rate is 0: no evaluation is better than the first."""
    stop = ["--epochs", 9, "--lr", 0, "TEST.PATIENCE", 2]
    assert run(*stop)[0] == 0
    assert read(tmp_path / "output" / "checkpoint.pth")["iteration"] == 8
    assert read(tmp_path / "output" / "model_best.pth")["iteration"] == 2
    assert run(*stop, "--resume", tmp_path / "output")[0] == 0
    assert "nothing is left to train: this run ended at iteration 8" in (tmp_path / "output" / "log.txt").read_text()
