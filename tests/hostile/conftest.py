"""Puts the harness where the tests, and the processes that they fork, can import it; small valid files to damage."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack.forked import run_command


@pytest.fixture(scope="session")
def images(tmp_path_factory, write_folder) -> Path:
    """A folder of three classes with 4, 4 and 4 images."""
    return write_folder(tmp_path_factory.mktemp("hostile") / "images", {"blue": 4, "green": 4, "red": 4})


@pytest.fixture(scope="session")
def tiny_options(images) -> list[str]:
    """``KEY VALUE`` pairs of the smallest classifier on `images`."""
    return [
        "MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_mnetv1_backbone",
        "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.MNET.WIDTH_MULT", "0.25", "MODEL.MNET.BLOCKS", "[1, 1, 1, 1, 1]",
        "MODEL.PIXEL_STD", "[57., 57., 57.]", "MODEL.CLSNET.NUM_CLASSES", "3", "MODEL.CLSNET.INPUT_SIZE", "32",
        "DATASETS.TRAIN", f"('folder:{images}',)", "DATASETS.TEST", f"('folder:{images}',)",
        "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0",
        "SOLVER.BASE_LR", "0.05", "SEED", "7",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_options) -> Path:
    """The output folder of a tiny training run."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = run_command(["train", "--num-gpus", "0", *tiny_options, "OUTPUT_DIR", "run"], folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"
