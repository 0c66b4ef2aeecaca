"""Predictions of two gloo processes, and result files."""

import csv
import json
import math
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import imgcls.evaluation
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.evaluation.gathered import csv_text, json_text, number, write_results

CLASSES = [f"class {i}" for i in range(7)]
# Images of each process: more on the first, none on the second, none on the first.
SPLITS = {"uneven": (10, 7), "second empty": (17, 0), "first empty": (0, 17)}


def score(begin: int, end: int, folder: Path) -> dict:
    """Feeds images begin..end of 17 in batches of 4 to both evaluators."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 7, (17,), generator=generator)
    multi_hot = (torch.rand(17, 7, generator=generator) < 0.4).float()
    probs = torch.rand(17, 7, generator=generator)
    losses = torch.rand(17, generator=generator) * torch.logspace(-6, 6, 17)  # their sum depends on the order
    images = torch.zeros(17, 3, 2, 2)
    evaluators = [
        (ImageNetEvaluator(CLASSES, output_dir=str(folder / "single"), save_probabilities=True), labels),
        (MultiLabelEvaluator(CLASSES, output_dir=str(folder / "multi"), save_probabilities=True), multi_hot),
    ]
    result = {}
    for evaluator, truth in evaluators:
        for start in range(begin, end, 4):
            part = slice(start, min(start + 4, end))
            ids = list(range(17))[part]
            inputs = {
                "image": images[part],
                "label": truth[part],
                "image_id": ids,
                "file_name": [f"{i}.png" for i in ids],
            }
            keys = ("scores", "pred_classes", "probs", "loss")
            values = (*probs[part].topk(7), probs[part], losses[part])
            evaluator.process(inputs, [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)])
        result.update(evaluator.evaluate())
    return result


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = {}
    for name, (first, second) in SPLITS.items():
        begin, end = (0, first) if rank == 0 else (first, first + second)
        results[name] = score(begin, end, folder / name)
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    root = str(Path(imgcls.evaluation.__file__).parents[2])
    code = f"import sys; sys.path[:0] = {[root, *sys.path]!r}; import runpy; sys.argv = sys.argv[1:]; " \
           "runpy.run_path(sys.argv[0], run_name='__main__')"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, __file__, folder], check=True, timeout=120)
    return folder


@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_give_the_result_of_one(split, two_processes, tmp_path):
    expected = score(0, 17, tmp_path)
    assert 0 < expected["accuracy"]["top1"] < 100 and 0 < expected["multilabel"]["mAP"] < 100
    assert expected["accuracy"]["loss"] == expected["multilabel"]["loss"] > 0
    first, second = (json.loads((two_processes / f"rank{rank}.json").read_text())[split] for rank in range(2))
    assert first == expected
    assert second == {}
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(names) == 9
    for name in names:
        assert (two_processes / split / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_without_distributed_each_process_scores_its_own(tmp_path):
    evaluator = ImageNetEvaluator(CLASSES, topk=[1], distributed=False)
    output = {"pred_classes": torch.tensor([3]), "scores": torch.tensor([0.9])}
    evaluator.process([{"image": torch.zeros(3, 2, 2), "label": 3, "image_id": 0}], [output])
    result = evaluator.evaluate()["accuracy"]
    assert result.pop("top1") == 100 and set(result.values()) == {100.0}


def test_any_name_survives_in_a_table(tmp_path):
    names = ["a,b", 'q"uote', "line\nbreak", "Äpfel", "not utf-8: \udcff", "", None]
    write_results(tmp_path / "new", {"t.csv": csv_text(["name", "n"], [[name, i] for i, name in enumerate(names)])})
    with open(tmp_path / "new" / "t.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [*names[:-1], ""]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.csv"]


def test_json_has_no_nan():
    assert json.loads(json_text({"a": number(math.nan), "b": number(12.34567891)})) == {"a": None, "b": 12.345679}
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(math.nan)


if __name__ == "__main__":
    # A fork before any work is safe, and spares the second process the imports.
    child = os.fork()
    worker(0 if child else 1, Path(sys.argv[1]))
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_an_evaluation_removes_what_a_killed_one_left(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process in (ended.pid, os.getppid()):
        (tmp_path / f".predictions.csv.{process}-0a1b2c3d.tmp").write_text("half of")
    write_results(tmp_path, {"predictions.csv": "a\n"})
    # The other one may belong to a process that is still writing.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".predictions.csv.{os.getppid()}-0a1b2c3d.tmp",
        "predictions.csv",
    ]
