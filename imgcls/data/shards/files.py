"""Files that are on the disk, whole, before they have their names."""

import hashlib
import os
from types import TracebackType

from imgcls.disk import sync_folder


class NewFile:
    """A file that takes its name when it is complete; usable as a context and as the stream of a tar writer.

    Args:
        path: the name to take.
        folder: for the temporary file, on the same file system.
    """

    def __init__(self, path: str, folder: str):
        self.path = path
        self.temporary = os.path.join(folder, f"{os.path.basename(path)}.{os.getpid()}.tmp")
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = open(self.temporary, "wb")  # noqa: SIM115, closed in __exit__

    @property
    def sha256(self) -> str:
        """Of what was written up to now, in hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if error is not None:
            os.unlink(self.temporary)
            return
        os.replace(self.temporary, self.path)
        sync_folder(os.path.dirname(self.path) or ".")


def write_file(path: str, data: bytes, folder: str) -> None:
    """Writes a file that is there whole or not at all; ``folder`` as for `NewFile`."""
    with NewFile(path, folder) as file:
        file.write(data)
