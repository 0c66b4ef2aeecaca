import pytest

from imgcls.solver import iterations


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch_size", "expected"),
    [(1, 100, 10, 10), (3, 100, 32, 9), (120, 1_281_167, 1024, 150_137), (0, 100, 10, 0), (1, 5, 64, 1), (2, 5, 64, 1)],
)
def test_counts_every_image_once_an_epoch(epochs, num_images, batch_size, expected):
    assert iterations(epochs, num_images, batch_size) == expected
    assert abs(expected * batch_size - epochs * num_images) <= max(batch_size / 2, batch_size - num_images)
