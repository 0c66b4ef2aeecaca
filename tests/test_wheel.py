"""The wheel works without the checkout: train, evaluate, hand over and report with what it holds."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The smallest run with every step: 3 iterations at 32 pixels.
SMALL = [
    "MODEL.CLSNET.NUM_CLASSES", "-1", "MODEL.CLSNET.INPUT_SIZE", "32", "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0", "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", "run",
]  # fmt: skip


def run(*command: object, cwd: Path) -> str:
    """Runs a command without the variables that could lead to the checkout; returns stdout."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A new environment with the wheel, and with the packages of this one except imgcls itself."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("imgcls", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    shutil.rmtree(source)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    (wheel,) = folder.glob("imgcls-*.whl")
    run(*pip, "--python", folder / "env", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # A plain entry of a .pth file is searched last, and the .pth files in the folder it names are not read: an editable
    # installation of the checkout stays out of reach.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env"


@pytest.mark.slow
def test_train_evaluate_hand_over_and_report_without_the_checkout(environment, tmp_path, write_folder):
    write_folder(tmp_path / "images" / "train", {"blue": 4, "red": 4})
    write_folder(tmp_path / "images" / "val", {"blue": 2, "red": 2})
    python, imgcls = environment / "bin" / "python", environment / "bin" / "imgcls"
    code = "from importlib.util import find_spec; print(find_spec('imgcls').origin)"
    package = Path(run(python, "-c", code, cwd=tmp_path).strip()).parent
    assert package.is_relative_to(environment)
    configs = {path.relative_to(package / "configs") for path in (package / "configs").rglob("*.*")}
    assert configs == {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.*")}

    sets = ["DATASETS.TRAIN", "('folder:images/train',)", "DATASETS.TEST", "('folder:images/val',)", *SMALL]
    train = [imgcls, "train", "--num-gpus", "0", "--config-file", "ImageNet/mnetv1_025.yaml"]
    run(*train, *sets, "TEST.EVAL_PERIOD", "0", cwd=tmp_path)
    run(*train, "--eval-only", *sets, "MODEL.WEIGHTS", "run/model_final.pth", cwd=tmp_path)
    detector = "COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml"
    printed = run(imgcls, "export-backbone", "run/model_final.pth", "b.pth", "--verify", detector, cwd=tmp_path)
    assert printed == "135/135 backbone tensors loaded, classifier dropped\n" and (tmp_path / "b.pth").exists()
    printed = run(imgcls, "report", "run", cwd=tmp_path)
    assert "on 4 test images" in printed and (tmp_path / "run" / "report" / "index.html").exists()
