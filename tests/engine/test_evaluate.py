import csv
import json

import numpy as np
import pytest

from imgcls.engine import Trainer, evaluate, resolve_from_data


@pytest.fixture
def averaged(tiny_cfg):
    """A finished run with an average of its weights."""
    tiny_cfg.SOLVER.EMA_DECAY, tiny_cfg.SOLVER.MAX_ITER = 0.99, 6
    resolve_from_data(tiny_cfg)
    trainer = Trainer(tiny_cfg)
    trainer.train()
    return trainer


def test_weights_and_their_average_are_both_evaluated(averaged, tiny_cfg, tmp_path):
    results = averaged._last_eval_results
    assert results.keys() == {"accuracy", "ema"} and results["ema"].keys() == {"accuracy"}
    folder = tmp_path / "output" / "inference"
    for path, expected in (("accuracy.json", results), ("ema/accuracy.json", results["ema"])):
        assert json.loads((folder / path).read_text())["metrics"] == pytest.approx(expected["accuracy"])
    assert (folder / "predictions.csv").read_text() != (folder / "ema" / "predictions.csv").read_text()
    lines = [json.loads(line) for line in (tmp_path / "output" / "metrics.json").read_text().splitlines()]
    for name in ("top1", "F1_macro", "loss"):
        assert lines[-1][f"ema/accuracy/{name}"] == results["ema"]["accuracy"][name]
    assert results["accuracy"]["loss"] != results["ema"]["accuracy"]["loss"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_is_evaluated_with_both(averaged, tiny_cfg, tmp_path, resume):
    tiny_cfg.MODEL.WEIGHTS = "" if resume else str(tmp_path / "output" / "model_final.pth")
    assert evaluate(Trainer, tiny_cfg, resume=resume) == averaged._last_eval_results


def test_an_average_that_is_not_in_the_file_is_not_made_up(averaged, tiny_cfg, tmp_path):
    averaged.checkpointer.checkpointables.pop("ema")
    averaged.run_state.save("without", 5, [])
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "output" / "without.pth")
    with pytest.raises(ValueError, match=r"without\.pth has no averaged weights; set SOLVER\.EMA_DECAY 0\.0"):
        evaluate(Trainer, tiny_cfg)
    tiny_cfg.SOLVER.EMA_DECAY = 0.0
    assert evaluate(Trainer, tiny_cfg).keys() == {"accuracy"}


def test_probabilities_of_all_classes_are_saved_by_the_config(tiny_cfg, tmp_path):
    tiny_cfg.TEST.SAVE_PROBABILITIES, tiny_cfg.TEST.TOPK = True, [1]
    resolve_from_data(tiny_cfg)
    Trainer(tiny_cfg).train()
    saved = np.load(tmp_path / "output" / "inference" / "probabilities.npy")
    assert saved.shape == (5, 3) and saved.sum(axis=1) == pytest.approx(1, abs=1e-5)
    with open(tmp_path / "output" / "inference" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == [f"{best:.6f}" for best in saved.max(axis=1)]
    classes = sorted(path.name for path in (tmp_path / "test").iterdir())
    assert [[row[f"p({name})"] for name in classes] for row in rows] == [[f"{p:.6f}" for p in row] for row in saved]
    true = [saved[i, classes.index(row["label"])] for i, row in enumerate(rows)]
    metrics = json.loads((tmp_path / "output" / "inference" / "accuracy.json").read_text())["metrics"]
    assert metrics["loss"] == pytest.approx(-np.log(true).mean(), rel=1e-5)
