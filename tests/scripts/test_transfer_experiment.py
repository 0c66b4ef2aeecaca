"""The experiment from its first step to its table, at toy length and on digits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Runs the script in a checkout that needs no set-up, and returns what it prints."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("env.sh", "transfer_experiment.sh"):
        (root / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (root / "scripts" / "install.sh").write_text("")
    for name in ("configs", "tools", "train_net_builtin.py"):
        (root / name).symlink_to(ROOT / name)
    small = "SOLVER.WARMUP_ITERS 0 SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER"
    variables = {
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SEEDS": "3",
        "SYNTHETIC": "--items digits --train 8 --test 8 --size 96",
        "PRETRAIN": f"{small} 3",
        "DETECT": f"{small} 3 INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96",
    }

    def start() -> str:
        script = ["bash", str(root / "scripts" / "transfer_experiment.sh"), str(tmp_path / "out put")]
        done = subprocess.run(script, env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return start


@pytest.mark.slow
def test_a_toy_experiment_ends_with_a_table_and_an_image(run, tmp_path):
    said = run()
    assert "135/135 backbone tensors loaded, classifier dropped" in said
    log = (tmp_path / "out put" / "handoff-3" / "log.txt").read_text()
    assert "backbone.pth: 135/135 backbone tensors loaded" in log
    assert "backbone tensors loaded" not in (tmp_path / "out put" / "random-3" / "log.txt").read_text()
    *table, image = said.splitlines()[-5:]
    assert table[0] == "| detector from | AP | AP50 | AP by seed |"
    assert table[2].startswith("| handed-over backbone | ") and table[3].startswith("| random weights | ")
    assert (tmp_path / "out put" / "table.md").read_text().splitlines() == table
    assert Image.open(image).size[0] > 500
    metrics = (tmp_path / "out put" / "random-3" / "metrics.json").read_text().splitlines()
    assert any("bbox/AP50" in json.loads(line) for line in metrics)
