"""A few pictures, made once."""

from pathlib import Path

import pytest

from imgcls.benchmark.pictures import make_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """16 JPEG files in 8 classes."""
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder, 16)
    return folder
