"""Every command of the tutorial and every cell of the notebook runs, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What a reader does by looking at the other terminal.
WAIT = "for _ in $(seq 120); do (: < /dev/tcp/127.0.0.1/7860) 2> /dev/null && break || sleep 0.5; done"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """``python`` and ``imgcls`` of this interpreter and this checkout, for shells and notebooks."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in (("python", ""), ("imgcls", "-m imgcls ")):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_the_commands_of_getting_started_run(environment, require):
    require("gradio")
    text = (DOCS / "getting_started.md").read_text()
    blocks = re.findall(r"^```bash( serve)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    commands = [f"{block.strip()} & trap 'kill %1' EXIT\n{WAIT}" if serve else block for serve, block in blocks]
    for example in (DOCS / "examples").glob("*.py"):  # the page tells readers to copy them
        shutil.copy(example, environment)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)], cwd=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    assert "135/135 backbone tensors loaded, classifier dropped" in result.stdout
    assert (environment / "output/shapes/report/index.html").is_file()
    assert len((environment / "predictions.csv").read_text().splitlines()) == 31
    (top1,) = map(float, re.findall(r"^30 images of folder:images/val\ntop1: ([\d.]+)$", result.stdout, re.MULTILINE))
    assert top1 > 80
    answer, _ = json.JSONDecoder().raw_decode(result.stdout[result.stdout.index("\n{") + 1 :])  # without an end of line
    assert answer["classes"][0] == "circle"
    average_precision = re.findall(r"copypaste: ([\d.]+),([\d.]+),", result.stdout)
    assert float(average_precision[-1][1]) > 90
    assert len(list((environment / "found").glob("*.jpg"))) == len(list((environment / "boxes/val").glob("*.jpg")))


@pytest.mark.slow
def test_the_notebook_runs(environment, require):
    nbformat, nbclient, _ = map(require, ("nbformat", "nbclient", "ipykernel"))
    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(environment)}}).execute()
    assert "135/135 backbone tensors loaded" in str(notebook.cells)


def test_the_notebook_in_the_repository_has_no_output():
    text = (DOCS / "quickstart.ipynb").read_text()
    assert '"outputs": []' in text
    assert '"output_type"' not in text
