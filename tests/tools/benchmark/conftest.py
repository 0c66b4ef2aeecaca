"""Images that all benchmark tests share."""

from pathlib import Path

import pytest
from benchmark.sample_images import make_images


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """16 JPEG files in 8 classes."""
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, 16)
    return folder
