"""The shell scripts: the environment they use, the commands they run, and their exit codes."""

import subprocess
from pathlib import Path

import pytest

from imgcls.cli.train_plain import parse_args

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted(ROOT.glob("scripts/*.sh")), ROOT / ".ci" / "run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_are_executable(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    if script.name in ("train_net_builtin.sh", "train_net.sh", "env.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)
    assert script.name == "env.sh" or script.stat().st_mode & 0o111


def test_ci_runs_the_documented_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line.partition(" #")[0] for line in lines if not line.startswith(("#", "set "))]
    assert commands == ["export CI=true", 'bash "$(dirname "$0")/../scripts/test.sh"']


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"VIRTUAL_ENV": "/some where/venv", "CONDA_PREFIX": "/conda"}, "/some where/venv/bin/python"),
        ({"CONDA_PREFIX": "/conda/envs/a b", "CONDA_DEFAULT_ENV": "a b"}, "/conda/envs/a b/bin/python"),
        ({"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "base"}, "/a checkout/.venv/bin/python"),
        ({}, "/a checkout/.venv/bin/python"),
    ],
)
def test_which_environment_the_scripts_use(variables, expected):
    code = f'ROOT="/a checkout"; . "{ROOT}/scripts/env.sh"; echo "$PYTHON"'
    result = subprocess.run(["sh", "-euc", code], env=variables, capture_output=True, text=True, check=True)
    assert result.stdout == expected + "\n"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a space in its path whose python only prints its arguments; also what to run in it."""
    root, python = tmp_path / "a checkout", tmp_path / "venv" / "bin" / "python"
    for folder in (root / "scripts", python.parent):
        folder.mkdir(parents=True)
    for script in ROOT.glob("scripts/*.sh"):
        (root / "scripts" / script.name).write_bytes(script.read_bytes())
    (root / "scripts" / "install.sh").write_text("")
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\necho\n')
    python.chmod(0o755)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        variables = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True)

    return root, run


TRAIN = "<train_net_builtin.py><--num-gpus><0><--config-file><configs/quickstart/digits_mnetv1_025.yaml>"
OUTPUT = "output/quickstart/digits_mnetv1_025"


def test_quickstart_trains_and_reports(checkout):
    _, run = checkout
    assert run("bash", "scripts/quickstart.sh").stdout == f"{TRAIN}\n<tools/report.py><{OUTPUT}>\n"


def test_quickstart_passes_settings_and_reports_on_their_output_folder(checkout):
    _, run = checkout
    result = run("bash", "scripts/quickstart.sh", "SOLVER.MAX_ITER", "3", "OUTPUT_DIR", "a b")
    assert result.stdout == f"{TRAIN}<SOLVER.MAX_ITER><3><OUTPUT_DIR><a b>\n<tools/report.py><a b>\n"


def test_quickstart_only_evaluates_a_finished_run(checkout):
    root, run = checkout
    (root / OUTPUT).mkdir(parents=True)
    (root / OUTPUT / "model_final.pth").write_text("half writ")
    assert run("bash", "scripts/quickstart.sh").stdout.startswith(f"{TRAIN}\n"), "killed while it was saved"
    (root / OUTPUT / "last_checkpoint").write_text("model_final.pth")
    said, evaluated, reported = run("bash", "scripts/quickstart.sh").stdout.splitlines()
    assert f"to train again, remove {OUTPUT}" in said
    assert evaluated == f"{TRAIN}<--eval-only><MODEL.WEIGHTS><{OUTPUT}/model_final.pth>"
    assert reported == f"<tools/report.py><{OUTPUT}>"
    assert run("bash", "scripts/quickstart.sh", "SEED", "2").stdout.startswith(f"{TRAIN}<SEED><2>\n")


def test_transfer_experiment_does_not_repeat_finished_runs(checkout):
    root, run = checkout
    for name in ("pretrain", "handoff-1", "handoff-2", "random-1"):
        (root / "out" / name).mkdir(parents=True)
        (root / "out" / name / "last_checkpoint").write_text("model_final.pth")
    (root / "out" / "handoff-2" / "last_checkpoint").write_text("model_0000899.pth")
    lines = run("bash", "scripts/transfer_experiment.sh", "out").stdout.splitlines()
    finished = [line.split(" is finished")[0] for line in lines if " is finished" in line]
    assert finished == ["out/pretrain", "out/handoff-1", "out/random-1"]
    trained = [line.rsplit("<", 1)[1] for line in lines if line.startswith("<tools/train_on_synthetic_set.py>")]
    assert trained == ["out/handoff-2>", "out/random-2>", "out/handoff-3>", "out/random-3>"]
    assert lines[-1] == "<tools/transfer_report.py><out>"


def test_test_script_checks_and_ends_with_pytest(checkout):
    _, run = checkout
    checks = ["<-m><ruff><check><.>", "<-m><ruff><format><--check><.>", "<-m><mypy>"]
    assert run("bash", "scripts/test.sh", "-k", "a b").stdout.splitlines() == [*checks, "<-m><pytest><-q><-k><a b>"]
    *before, faults, default, slow = run("bash", "scripts/test.sh").stdout.splitlines()
    assert before[:3] == checks and "<docs/generate.py>" in before
    assert before[-2] == "build/docs/index.html" and "/output/real_weights/packages>" in before[-1]
    assert faults == "<-m><pytest><-q><tests/faults>"
    assert default == (
        "<-m><pytest><-q><-n><auto><--dist><loadfile><-m><not slow><--ignore><tests/faults>"
        "<--cov><imgcls><--cov-report=>"
    )
    assert slow == (
        "<-m><pytest><-q><-m><slow><--cov><imgcls><--cov-append><--cov-report><term:skip-covered><--cov-fail-under><93>"
    )


def test_train_script_passes_its_arguments_and_exit_code(checkout):
    root, run = checkout
    result = run("sh", "scripts/train_net_builtin.sh", "--config-file", "a b.yaml", "KEY", "")
    assert result.stdout == f"<{root}/train_net_builtin.py><--config-file><a b.yaml><KEY><>\n"
    (root.parent / "venv" / "bin" / "python").write_text("#!/bin/sh\nexit 2\n")
    assert run("sh", "scripts/train_net_builtin.sh").returncode == 2
    assert run("bash", "scripts/quickstart.sh").returncode == 2
    assert run("bash", "scripts/test.sh").returncode == 2


def test_plain_train_script_uses_all_gpus(checkout):
    root, run = checkout
    said = run("sh", "scripts/train_net.sh", "/data/a b", "-p", "10").stdout
    assert said.startswith(f"<{root}/train_net.py><--config-file><{root}/configs/ImageNet/mnetv1_100.yaml>")
    assert "<--multiprocessing-distributed>" in said and said.endswith("</data/a b><-p><10>\n")
    parsed = parse_args([part.strip("<>") for part in said.strip().split("><")][1:-3])
    assert parsed.multiprocessing_distributed and parsed.opts[-2:] == ["SOLVER.BASE_LR", "0.4"]


@pytest.mark.parametrize("script", ["train_net_builtin.sh", "train_net.sh"])
def test_train_script_without_an_environment_names_install_sh(checkout, script):
    root, run = checkout
    (root.parent / "venv" / "bin" / "python").unlink()
    result = run("sh", f"scripts/{script}")
    assert result.returncode == 2 and "bash scripts/install.sh" in result.stderr


def run_install(environment: Path, python: str | None) -> subprocess.CompletedProcess[str]:
    """Runs the real install.sh in an environment whose python is the given shell script."""
    (environment / "bin").mkdir(parents=True)
    if python is not None:
        (environment / "bin" / "python").write_text(f"#!/bin/sh\n{python}\n")
        (environment / "bin" / "python").chmod(0o755)
    variables = {"VIRTUAL_ENV": str(environment), "PATH": "/usr/bin:/bin"}
    command = ["bash", str(ROOT / "scripts" / "install.sh"), "demo,dev"]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_install_refuses_an_old_python(tmp_path):
    result = run_install(tmp_path / "a b", '[ "$1" = --version ] && echo Python 3.9.1 && exit; exit 1')
    assert result.returncode == 2
    assert f"{tmp_path}/a b/bin/python is Python 3.9.1; Python 3.10 or newer is needed" in result.stderr


def test_install_refuses_an_active_environment_without_python(tmp_path):
    result = run_install(tmp_path / "a b", None)
    assert result.returncode == 2 and f"{tmp_path}/a b has no bin/python" in result.stderr
    assert not (tmp_path / "a b" / "bin" / "python").exists()


def test_install_does_nothing_if_the_stamp_is_current(tmp_path):
    log = tmp_path / "calls"
    result = run_install(tmp_path / "a b", f'echo "$@" >> "{log}"')
    assert result.returncode == 0
    assert log.read_text().splitlines()[-1] == f"{ROOT}/scripts/stamp.py check demo,dev"


def test_install_stops_at_the_first_step_that_fails(tmp_path):
    python = 'case "$*" in *stamp.py*|*install_detectron2.py*) exit 1;; *"import torch, torchvision"*) exit 0;; esac'
    log = tmp_path / "calls"
    result = run_install(tmp_path / "a b", f'echo "$@" >> "{log}"; {python}')
    assert result.returncode == 1
    assert log.read_text().splitlines()[-1] == f"{ROOT}/tools/install_detectron2.py", "no later step ran"
