"""The checkpointer of a run: saving that survives a kill, and resuming with every state or not at all."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from imgcls.checkpoint.files import check_pickle, read_checkpoint, write_checkpoint
from imgcls.checkpoint.run import TAG, find_newest, find_readable, list_numbered, read_tag, remove_old
from imgcls.disk import remove_temporary, replace_file
from imgcls.errors import UserError, UserFileNotFoundError

# These states exist only with an option that may be switched on in the middle of a run.
_OPTIONAL = ("ema", "grad_scaler")
_HEURISTICS = "?matching_heuristics=True"  # detectron2's suffix of a path whose tensors are matched by similar names
_logger = logging.getLogger(__name__)


def require(checkpoint: Mapping[str, Any], keys: Iterable[str], source: str) -> None:
    """Refuses to resume from a checkpoint that lacks one of these entries.

    Raises:
        ValueError: an entry is missing; the message says how to use the weights.
    """
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise UserError(
            f"--resume: {source} has no {', '.join(map(repr, missing))}: it holds weights without the state of a run; "
            f"to start from these weights leave --resume out and set MODEL.WEIGHTS {source}"
        )


def check_states(checkpoint: Mapping[str, Any], parts: Iterable[str], source: str) -> None:
    """Checks that a checkpoint has the iteration and the state of every part; warns about an optional one.

    Raises:
        ValueError: as ``require``.
    """
    parts = list(parts)
    require(checkpoint, [*(name for name in parts if name not in _OPTIONAL), "iteration"], source)
    for name in parts:
        if name not in checkpoint:
            _logger.warning("%s has no %r, which was off when it was saved; it starts from scratch", source, name)


def load_states(checkpoint: dict[str, Any], parts: Mapping[str, Any], source: str) -> None:
    """Moves the states from a checkpoint into the parts.

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
                    f"--resume: {name!r} of {source} does not fit this run ({reason}); restore the config with which "
                    "it was saved, or leave --resume out"
                ) from error


class RunCheckpointer(DetectionCheckpointer):
    """Saves so that a kill or a full disk at any moment leaves a checkpoint to resume from, and finds it again.

    Args:
        model: wrapped for distributed training or not.
        save_dir: the run's folder.
        keep: how many of the numbered checkpoints to keep; 0 keeps all.
        allow_pickle: whether weights are also read from files that can run code; see ``read_checkpoint``.
        checkpointables: other objects with a state, by its name in the file.

    Attributes:
        source: the file that was loaded last; ``""`` if there is none.
        resumed_in_place: whether the run was resumed from a file in ``save_dir``, and not from that of another run.
    """

    def __init__(
        self, model: nn.Module, save_dir: str, *, keep: int = 0, allow_pickle: bool = False, **checkpointables: Any
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.keep = keep
        self.allow_pickle = allow_pickle
        self.source = ""
        self.resumed_in_place = False
        self._matching_heuristics = False

    def save(self, name: str, *, tag: bool = True, **entries: Any) -> None:
        """Writes ``save_dir/name.pth`` on the main process, and then removes old checkpoints beyond ``keep``.

        Args:
            name: without folder and ``.pth``.
            tag: whether this becomes the last checkpoint, from which a run is resumed.
            entries: other entries of the file, such as ``iteration``.

        Raises:
            ValueError: the file cannot be written; the last checkpoint is unchanged.
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
        with replace_file(os.path.join(self.save_dir, TAG), self._advice()) as file:
            file.write(last_filename_basename.encode())

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing.

        Args:
            path: a file or URL, with or without detectron2's suffix ``?matching_heuristics=True``.
            args: see detectron2's ``DetectionCheckpointer.load``.
            kwargs: see detectron2's ``DetectionCheckpointer.load``.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: as ``read_checkpoint``.
        """
        self.source = path.removesuffix(_HEURISTICS)
        self._matching_heuristics = path.endswith(_HEURISTICS)
        check_pickle(self.source, self.allow_pickle)  # before a URL is downloaded
        if self.source and "://" not in self.source and not os.path.isfile(self.source):
            raise UserFileNotFoundError(f"MODEL.WEIGHTS {self.source}: no such checkpoint")
        return super().load(self.source, *args, **kwargs)

    def has_checkpoint(self) -> bool:
        """Whether ``save_dir`` has a checkpoint to resume from, readable or not."""
        return bool(read_tag(self.save_dir) or list_numbered(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """Returns the newest readable checkpoint, with a warning if it is not the last one; see ``find_newest``."""
        return find_newest(self.save_dir)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Loads the weights of ``path`` or, with ``resume``, resumes from the last checkpoint of ``save_dir``.

        If ``resume`` is on and ``save_dir`` has no checkpoint, a new run starts from ``path``, with one line in the
        log: a job that is started again after an interruption can always ask to resume. A checkpointer without
        ``checkpointables``, as for evaluation, raises an error in this case, because it would score other weights.

        Returns:
            The entries of the file that are not the state of a part. They include ``"iteration"`` if, and only if,
            a run was resumed.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: as ``load``; or this run cannot resume from the checkpoint.
        """
        if resume and self.has_checkpoint():
            return self._resume(find_newest(self.save_dir))
        if resume and not self.checkpointables:
            raise _nothing_to_resume(self.save_dir, "set OUTPUT_DIR to the run's folder")
        if resume:
            start = f"the weights of {path}" if path else "scratch"
            _logger.info("--resume: no checkpoint in %s; starting a new run from %s", self.save_dir, start)
        rest = self.load(path, checkpointables=[])
        rest.pop("iteration", None)
        return rest

    def resume_from(self, path: str) -> dict[str, Any]:
        """Resumes from a file, or from the newest checkpoint of a folder; if it is damaged, from the one before it.

        Returns:
            As ``resume_or_load``.

        Raises:
            FileNotFoundError: the file or folder does not exist, or the folder has no checkpoint.
            ValueError: as ``resume_or_load``.
        """
        if not os.path.exists(path):
            raise UserFileNotFoundError(f"--resume {path}: no such checkpoint, and no such folder of checkpoints")
        newest = find_newest(path) if os.path.isdir(path) else find_readable(path)
        if not newest:
            raise _nothing_to_resume(path, "leave --resume out to start a new run, or name the run's folder")
        return self._resume(newest)

    def _resume(self, path: str) -> dict[str, Any]:
        self._check_resumable(read_checkpoint(path, mapped=True), path)
        rest = self.load(path, checkpointables=[])
        load_states(rest, self.checkpointables, path)
        folder = os.path.dirname(os.path.realpath(path))
        self.resumed_in_place = os.path.isdir(self.save_dir) and os.path.samefile(folder, self.save_dir)
        return rest

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        """Refuses a checkpoint before any of it is loaded."""
        if self.checkpointables:
            check_states(checkpoint, self.checkpointables, path)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Reads a file in place of detectron2's own method, which unpickles what a path or URL leads to."""
        checkpoint = read_checkpoint(filename, self.allow_pickle)
        return {**checkpoint, "matching_heuristics": True} if self._matching_heuristics else checkpoint

    def _advice(self) -> str:
        last = read_tag(self.save_dir)
        if not os.path.isfile(last):
            return "make room or set OUTPUT_DIR to another folder; there is no earlier checkpoint"
        return f"make room there; the earlier checkpoint {last} is intact, and --resume continues from it"


def _nothing_to_resume(folder: str, advice: str) -> UserFileNotFoundError:
    return UserFileNotFoundError(f"--resume: {folder} has no checkpoint, nothing to resume; {advice}")
