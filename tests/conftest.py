"""Small real inputs that many tests use."""

import importlib
import logging
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image

from imgcls.config import get_cfg

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As in a background job of a shell. Processes that tests start would inherit it, and Ctrl-C would not end them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_loggers():
    """What detectron2's setup_logger leaves behind writes to a test's closed streams and hides records from pytest."""
    yield
    for name in ("detectron2", "fvcore", "imgcls"):
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path, monkeypatch):
    """Every test has its own folder for data sets and output, and its own random numbers."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("IMGCLS_CACHE", "")
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def require():
    """``require("captum")``: an optional package; without it a test is skipped, but fails in CI, which installs it."""
    return importlib.import_module if os.environ.get("CI") else pytest.importorskip


@pytest.fixture
def chromium(require):
    """A browser of playwright, without the requests that it makes by itself."""
    api = require("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        assert not os.environ.get("CI"), "scripts/test.sh installs a browser there"
        pytest.skip(f"none of {BROWSERS} is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def write_folder():
    """``write_folder(root, {"cat": 3, "dog": 2})``: one sub-folder a class, images a class can be told by."""

    def write(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30)) -> Path:
        rng = np.random.default_rng(0)
        for index, (name, count) in enumerate(counts.items()):
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
                pixels[:, :, index % 3] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
        return root

    return write


@pytest.fixture
def tiny_cfg(tmp_path, write_folder) -> CfgNode:
    """The smallest classifier on 12 + 5 images of three classes, on the CPU."""
    train = write_folder(tmp_path / "train", {"blue": 4, "green": 4, "red": 4})
    test = write_folder(tmp_path / "test", {"blue": 2, "green": 2, "red": 1})
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            "MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.DEVICE", "cpu",
            "MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "MODEL.BACKBONE.FREEZE_AT", "0",
            "MODEL.MNET.WIDTH_MULT", "0.25", "MODEL.MNET.BLOCKS", "[1, 1, 1, 1, 1]",
            "MODEL.PIXEL_STD", "[57., 57., 57.]",
            "MODEL.CLSNET.NUM_CLASSES", "3", "MODEL.CLSNET.INPUT_SIZE", "32",
            "DATASETS.TRAIN", f"('folder:{train}',)", "DATASETS.TEST", f"('folder:{test}',)",
            "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "3",
            "SOLVER.WARMUP_ITERS", "0",
            "SOLVER.BASE_LR", "0.05", "SEED", "7", "OUTPUT_DIR", str(tmp_path / "output"),
        ]
    )  # fmt: skip
    return cfg


@pytest.fixture
def run_script(monkeypatch, capsys):
    """``run_script("train_net_builtin.py", "--num-gpus", "0")`` in this process: exit code and stderr."""

    def run(script: str, *args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return run
