"""The states of a run's parts in a checkpoint: all there, and loaded, or refused."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from imgcls.checkpoint.files import read_checkpoint, write_checkpoint
from imgcls.checkpoint.run import TAG, find_newest, find_whole, list_numbered, read_tag, remove_old
from imgcls.disk import remove_temporary, replace_file
from imgcls.errors import UserError, UserFileNotFoundError

# States that a run has only with an option switched on; it may be switched on in the middle of a run.
_OPTIONAL = ("ema", "grad_scaler")
_logger = logging.getLogger(__name__)


def require(checkpoint: Mapping[str, Any], keys: Iterable[str], source: str) -> None:
    """Refuses to go on from a checkpoint without one of these entries.

    Raises:
        ValueError: which are missing, and how to use the weights in it.
    """
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise UserError(
            f"--resume: {source} has no {', '.join(map(repr, missing))}: it is a backbone, exported or of another "
            f"project; to start from its weights leave --resume out and set MODEL.WEIGHTS {source}"
        )


def check_states(checkpoint: Mapping[str, Any], parts: Iterable[str], source: str) -> None:
    """Whether a checkpoint has the iteration and the state of every part; warns of one that was off till now.

    Raises:
        ValueError: as ``require``.
    """
    parts = list(parts)
    require(checkpoint, [*(name for name in parts if name not in _OPTIONAL), "iteration"], source)
    for name in parts:
        if name not in checkpoint:
            _logger.warning("%s has no %r, which was off when it was saved; it starts anew from here", source, name)


def load_states(checkpoint: dict[str, Any], parts: Mapping[str, Any], source: str) -> None:
    """Moves the states out of a checkpoint into the parts.

    Raises:
        ValueError: a state is of another kind or size.
    """
    for name, part in parts.items():
        if name in checkpoint:
            try:
                part.load_state_dict(checkpoint.pop(name))
            except (ValueError, KeyError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise UserError(
                    f"--resume: {name!r} of {source} does not fit this run ({reason}); set the config back to what it "
                    "was, or leave --resume out"
                ) from error


class RunCheckpointer(DetectionCheckpointer):
    """Saves so that a kill or a full disk at any moment leaves a checkpoint to go on from, and finds it again.

    Args:
        model: wrapped for distributed training or not.
        save_dir: the run's folder.
        keep: how many of the numbered checkpoints stay; 0 keeps all.
        checkpointables: what else has a state, by its name in the file.

    Attributes:
        source: the file that was loaded last; ``""`` for none.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, keep: int = 0, **checkpointables: Any):
        super().__init__(model, save_dir, **checkpointables)
        self.keep = keep
        self.source = ""

    def save(self, name: str, *, tag: bool = True, **entries: Any) -> None:
        """Writes ``save_dir/name.pth`` on the main process, and then removes the numbered ones beyond ``keep``.

        Args:
            name: without folder and ``.pth``.
            tag: whether it becomes the last checkpoint, which a resumed run goes on from.
            entries: what else to put into the file, such as ``iteration``.

        Raises:
            ValueError: it cannot be written; the last checkpoint is what it was.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: part.state_dict() for key, part in self.checkpointables.items()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        if os.path.isdir(self.save_dir):
            remove_temporary(self.save_dir)
        write_checkpoint(path, {"model": self.model.state_dict(), **states, **entries}, self._advice())
        _logger.info("checkpoint saved: %s", path)
        if tag:
            self.tag_last_checkpoint(f"{name}.pth")
        if self.keep:
            remove_old(path, self.keep)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Makes a file of ``save_dir`` the last checkpoint."""
        content = last_filename_basename.encode()
        replace_file(os.path.join(self.save_dir, TAG), lambda file: file.write(content), self._advice())

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing."""
        self.source = path
        return super().load(path, *args, **kwargs)

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume, readable or not."""
        return bool(read_tag(self.save_dir) or list_numbered(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """The newest checkpoint that can be read, with a warning if it is not the last; see ``find_newest``."""
        return find_newest(self.save_dir)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Loads the weights of ``path``, or with ``resume`` goes on from the last checkpoint of ``save_dir``.

        Returns:
            The entries of the file that are nobody's state, such as ``iteration``.

        Raises:
            FileNotFoundError: no such file; nothing to resume.
            ValueError: as ``load``; a checkpoint that this run cannot go on from.
        """
        return self._resume(self._find_newest(self.save_dir)) if resume else self.load(path, checkpointables=[])

    def resume_from(self, path: str) -> dict[str, Any]:
        """Goes on from a file, or from the newest checkpoint of a folder; where it is damaged, from the one before.

        Returns and raises as ``resume_or_load``.
        """
        if not os.path.exists(path):
            raise UserFileNotFoundError(f"--resume {path}: no such checkpoint, and no such folder of them")
        return self._resume(self._find_newest(path) if os.path.isdir(path) else find_whole(path))

    def _find_newest(self, folder: str) -> str:
        newest = find_newest(folder)
        if not newest:
            raise UserFileNotFoundError(
                f"--resume: {os.path.join(folder, TAG)} is not there, nothing to resume; "
                "leave --resume out to start, or set OUTPUT_DIR to the run's folder"
            )
        return newest

    def _resume(self, path: str) -> dict[str, Any]:
        self._check_resumable(read_checkpoint(path, mapped=True), path)
        rest = self.load(path, checkpointables=[])
        load_states(rest, self.checkpointables, path)
        return rest

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        """What can be known before anything is loaded."""
        if self.checkpointables:  # evaluation has none
            check_states(checkpoint, self.checkpointables, path)

    def _advice(self) -> str:
        last = read_tag(self.save_dir)
        if not os.path.isfile(last):
            return "make room or set OUTPUT_DIR to another folder; there is no checkpoint before it"
        return f"make room there; the checkpoint before it, {last}, is still there and --resume goes on from it"
