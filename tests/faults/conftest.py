"""What the fault tests share; the harness is put where they, and the processes that they start, can import it."""

import sys
from ast import literal_eval
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from imgcls.data.sampler import WINDOW
from imgcls.data.shards.pack import pack_dataset

sys.path.insert(0, str(Path(__file__).parent))

from harness.images import write_images
from harness.survive import SCRIPTS, Job


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """The settings that name the data set."""
    return tuple(write_images(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="session")
def shards(images, tmp_path_factory):
    """The same images in shards of a few each, in more than one window of the shuffling."""
    _, train, _, test = images
    folder = tmp_path_factory.mktemp("packed") / "train"
    index = pack_dataset(literal_eval(train)[0], str(folder), shard_size=24_000)
    assert len(index["shards"]) > WINDOW
    return "DATASETS.TRAIN", f"('shards:{folder}',)", "DATASETS.TEST", test


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """``whole(job)``: the folder of the uninterrupted run, and the seconds that it took."""

    @cache
    def run(job: Job) -> tuple[Path, float]:
        folder = tmp_path_factory.mktemp("whole")
        return folder, job.finish(folder)

    return run


@pytest.fixture
def for_both_trainers():
    """``for_both_trainers(function)``: calls it with each script, at the same time, on a core each."""

    def call(function):
        with ThreadPoolExecutor(len(SCRIPTS)) as pool:
            return list(pool.map(function, SCRIPTS))

    return call
