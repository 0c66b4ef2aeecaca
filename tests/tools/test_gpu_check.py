"""tools/gpu_check.py on the CPU with tiny sizes, and the script that runs it."""

import subprocess
from types import SimpleNamespace

import gpu_check
import pytest
import torch

from imgcls.__main__ import main as imgcls_main

CPU = torch.device("cpu")


def test_both_networks_are_timed_in_each_mode():
    modes = [gpu_check.Mode("float32"), gpu_check.Mode("AMP bfloat16", torch.bfloat16)]
    _, _, *rows = gpu_check.compare_networks(CPU, 2, 32, modes, warmup=0, repeats=1)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    names = list(gpu_check.NETWORKS)
    assert [row[:2] for row in cells] == [[name, mode.name] for mode in modes for name in names]
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in cells)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_mode_runs_on_a_gpu():
    rows = gpu_check.compare_networks(torch.device("cuda"), 2, 64, gpu_check.MODES, warmup=1, repeats=2)
    assert len(rows) == 2 + 2 * len(gpu_check.MODES)


def test_the_two_networks_are_of_the_same_size():
    counts = [sum(p.numel() for p in build(CPU, False).parameters()) for build in gpu_check.NETWORKS.values()]
    assert counts[0] == counts[1] == 4_231_976


def test_the_median_of_the_calls_after_the_warm_up():
    calls = []
    assert gpu_check.time_calls(lambda: calls.append(1), CPU, warmup=2, repeats=3) >= 0
    assert len(calls) == 5


def test_both_trainers_are_timed(monkeypatch):
    """In this process; the tool starts a process for each."""
    monkeypatch.setattr(gpu_check, "run_imgcls", lambda *arguments: imgcls_main(arguments))
    _, _, *rows = gpu_check.compare_trainers(CPU, batch=2, size=32, iterations=4, workers=0)
    assert [row.split(" | ")[0] for row in rows] == ["| imgcls train", "| imgcls train-plain"]
    assert all(float(row.split(" | ")[2].replace(",", "")) > 0 for row in rows)


def test_a_trainer_that_fails_is_one_line(monkeypatch):
    failed = SimpleNamespace(returncode=2, stderr="warning: x\nerror: no memory\n")
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"^imgcls train ended with exit code 2: error: no memory$"):
        gpu_check.run_imgcls("train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_machine_without_a_gpu_is_one_line_and_exit_code_2(capsys):
    assert gpu_check.main([]) == 2
    assert capsys.readouterr() == ("", "error: this machine has no GPU that torch can use\n")


@pytest.mark.parametrize(("gpu", "tests", "tool", "expected"), [(1, 0, 0, 2), (0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 2, 1)])
def test_the_exit_code_of_the_script(request, tmp_path, gpu, tests, tool, expected):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    cases = f"case $1 in -c) exit {gpu};; -m) code={tests};; *) code={tool};; esac"
    python.write_text(f'#!/bin/sh\n{cases}\necho "$@"\nexit $code\n')
    python.chmod(0o755)
    script = request.config.rootpath / "scripts" / "gpu_check.sh"
    variables = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", script, "--batch", "8"], env=variables, capture_output=True, text=True)
    assert done.returncode == expected
    ran = [] if gpu else ["-m pytest -q -m gpu", "tools/gpu_check.py --batch 8"]
    assert done.stdout.splitlines() == ran and done.stderr.count("error: ") == (expected > 0)
