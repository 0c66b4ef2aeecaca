"""Epochs to iterations: the one place that says how long an epoch is."""


def iterations(epochs: int, num_images: int, batch_size: int) -> int:
    """The iterations that see every picture ``epochs`` times, to the nearest; at least 1 for at least one epoch.

    The training stream does not stop at the end of an epoch: a batch can hold pictures of two, and none is dropped.

    Args:
        epochs: how many, from 0.
        num_images: of the training set.
        batch_size: of all processes together.
    """
    return max(round(epochs * num_images / batch_size), min(epochs, 1))
