"""The number of processes is a matter of speed: real runs on 1, 2, 3 and 4 of them do the same."""

from pathlib import Path

import pytest
import torch
from harness.images import write_images
from harness.process import Attempt

CONFIG = Path(__file__).parent / "everything.yaml"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """``start(folder, ranks, KEY, value, ...)``: runs the entry script to its end, gives the output folder."""
    root = tmp_path_factory.mktemp("number")
    sets = write_images(root / "data")

    def run(name, ranks, *settings, flags=()):
        output = root / name
        settings = [*sets, *map(str, settings), "OUTPUT_DIR", str(output)]
        attempt = Attempt(
            "train_net_builtin.py", ["--config-file", str(CONFIG), *flags, *settings], root / f"{name}.log", ranks
        )
        assert attempt.wait() == [0] * ranks, attempt.said()
        return output

    return run


def curve(output):
    """The loss of every iteration; metrics.json has medians of 20, in which a difference could hide."""
    log = torch.load(output / "model_final.pth", weights_only=True)["log"]
    return next([loss for loss, _ in values] for name, _, values in log["scalars"] if name == "total_loss")


# No dropout: every process draws its own. No evaluation or average: they are not what is compared here.
TRAIN = ("MODEL.CLSNET.DROPOUT", 0.0, "SOLVER.EMA_DECAY", 0.0, "SOLVER.LOG_PERIOD", 1, "TEST.EVAL_PERIOD", 0,
         "SOLVER.MAX_ITER", 12, "SOLVER.STEPS", "(8,)", "TEST.BEST_METRIC", "")  # fmt: skip


@pytest.mark.parametrize(("norm", "learning_rate"), [("FrozenBN", 0.02), ("naiveSyncBN", 0.002)])
def test_same_losses_on_1_2_and_4_processes(start, norm, learning_rate):
    """Where BN statistics are those of the whole batch or fixed, the mean of the losses is that of the whole batch.

    The order of a sum rounds differently, and training with BN of 8 images doubles a difference at every iteration:
    hence the small steps, and only the first 8 losses.
    """
    common = (*TRAIN, "SOLVER.ACCUM_STEPS", 1, "SOLVER.BASE_LR", learning_rate, "MODEL.MNET.NORM", norm)
    curves = {ranks: curve(start(f"{norm}-{ranks}", ranks, *common))[:8] for ranks in (1, 2, 4)}
    assert len(curves[1]) == 8 and len(set(curves[1])) > 5
    assert curves[2] == pytest.approx(curves[1], rel=1e-5)
    assert curves[4] == pytest.approx(curves[1], rel=1e-5)


def test_accumulation_is_the_batch_of_many_processes_on_one(start):
    common = (*TRAIN, "MODEL.MNET.NORM", "FrozenBN")
    one = start("accumulated", 1, *common, "SOLVER.ACCUM_STEPS", 4)
    four = start("four", 4, *common, "SOLVER.ACCUM_STEPS", 1)
    both = start("both", 2, *common, "SOLVER.ACCUM_STEPS", 2)
    assert curve(one) == pytest.approx(curve(four), rel=1e-4) == curve(both)
    weights = [torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (one, four, both)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(weights[2][name], value, rtol=1e-3, atol=1e-5)


def test_same_metrics_and_predictions_on_1_2_and_3_processes(start):
    """8 images do not divide by 3 processes, nor by batches of 3."""
    weights = start("trained", 1, "SOLVER.MAX_ITER", 10, "SOLVER.STEPS", "(8,)") / "model_final.pth"
    folders = [
        start(f"evaluated-{ranks}-{batch}", ranks, "MODEL.WEIGHTS", weights, "SOLVER.IMS_PER_BATCH", batch * ranks,
              "SOLVER.ACCUM_STEPS", 1, flags=["--eval-only"])
        for ranks, batch in ((1, 8), (1, 3), (2, 8), (2, 1), (3, 3), (3, 2))
    ]  # fmt: skip
    names = ["accuracy.json", "predictions.csv", "confusion_matrix.csv", "per_class.csv", "ema/predictions.csv"]
    for name in names:
        contents = {(folder / "inference" / name).read_text() for folder in folders}
        assert len(contents) == 1, name
    assert len((folders[-1] / "inference" / "predictions.csv").read_text().splitlines()) == 1 + 8


def test_synchronised_norm_for_gpus_is_refused_on_cpu_processes(start, tmp_path):
    arguments = ["--config-file", str(CONFIG), *write_images(tmp_path / "data"), "OUTPUT_DIR", str(tmp_path / "out")]
    attempt = Attempt("train_net_builtin.py", [*arguments, "MODEL.MNET.NORM", "SyncBN"], tmp_path / "log", 2)
    assert attempt.wait() == [2, 2]
    assert "'SyncBN' works on GPUs only; on CPU processes set it to 'naiveSyncBN'" in attempt.said()
