"""What it takes until a file is on the disk."""

import errno
import os


def sync_folder(folder: str) -> None:
    """Makes a rename last: a file's own ``fsync`` says nothing of its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and have renamed all the same
            raise
    finally:
        os.close(descriptor)
