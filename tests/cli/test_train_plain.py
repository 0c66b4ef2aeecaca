import pytest

from imgcls.cli.train_plain import parse_args
from imgcls.config import load_cfg


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
        (["--gpu", "0", "--multiprocessing-distributed"], "--gpu is for one process"),
        (["nowhere"], "nowhere: DATA_DIR must hold the folders train and val"),
    ],
)
def test_refuses(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_args(["--config-file", "x", *argv])
