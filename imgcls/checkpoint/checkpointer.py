"""The checkpointer of a run: a kill never costs the last checkpoint, and resuming restores every state or fails."""

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from imgcls.checkpoint.files import check_pickle, read_checkpoint, write_checkpoint
from imgcls.checkpoint.run import (
    TAG,
    check_resume_path,
    find_newest,
    find_readable,
    list_numbered,
    read_tag,
    remove_old,
)
from imgcls.disk import remove_temporary, replace_file
from imgcls.errors import UserError, UserFileNotFoundError

# A run can be resumed without these states, because the options that need them may be switched on halfway.
_OPTIONAL = ("ema", "grad_scaler")
_logger = logging.getLogger(__name__)


def require(checkpoint: Mapping[str, Any], keys: Iterable[str], source: str) -> None:
    """Refuses to resume from a checkpoint that lacks one of these entries.

    Raises:
        UserError: an entry is missing; the message says how to start from the weights alone.
    """
    missing = [key for key in keys if key not in checkpoint]
    if missing:
        raise UserError(
            f"--resume: {source} has no {', '.join(map(repr, missing))}: it holds weights without the state of a run; "
            f"to start from these weights leave --resume out and set MODEL.WEIGHTS {source}"
        )


class RunCheckpointer(DetectionCheckpointer):
    """Saves in such a way that a kill or a full disk at any moment leaves a checkpoint to resume from.

    Args:
        model: wrapped for distributed training or not.
        save_dir: the run's folder.
        keep: how many of the numbered checkpoints to keep; 0 keeps all.
        allow_pickle: whether weights are also read from files that can run code; see ``read_checkpoint``.
        checkpointables: other objects with a state, by its name in the file; none for evaluation and prediction.

    Attributes:
        source: the file or URL that was loaded last; ``""`` if there is none.
        resumed_in_place: whether the run was resumed from a file in ``save_dir``, not from the folder of another run.
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

        With ``tag``, a run is resumed from this file. ``entries`` are written beside the states, as ``iteration`` is.

        Raises:
            UserError: the file cannot be written; the last checkpoint is unchanged.
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

        ``path`` is a local file, or a URL that detectron2's path manager can fetch (``https://``, ``detectron2://``,
        ...), and may end in detectron2's ``?matching_heuristics=True``. The other arguments are those of detectron2.

        Raises:
            UserFileNotFoundError: the file does not exist.
            UserError: as ``read_checkpoint``; or the URL cannot be fetched.
        """
        self.source, _, heuristics = path.partition("?matching_heuristics=")
        self._matching_heuristics = heuristics == "True"
        check_pickle(self.source, self.allow_pickle)  # before a URL is downloaded
        if self.source and not os.path.isfile(self.source):
            self._fetch()
        return super().load(self.source, *args, **kwargs)

    def _fetch(self) -> None:
        """Downloads a URL into the path manager's cache, where detectron2's checkpointer looks first."""
        found = False
        if "://" in self.source:
            try:
                found = os.path.isfile(self.path_manager.get_local_path(self.source))
            except (OSError, ValueError, AssertionError) as error:  # what path handlers raise
                reason = " ".join(str(error).split())
                raise UserError(f"MODEL.WEIGHTS {self.source} cannot be fetched ({reason})") from error
        if not found:
            raise UserFileNotFoundError(f"MODEL.WEIGHTS {self.source}: no such checkpoint")

    def has_checkpoint(self) -> bool:
        """Whether ``save_dir`` has a checkpoint to resume from, readable or not."""
        return bool(read_tag(self.save_dir) or list_numbered(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """Returns the newest readable checkpoint, with a warning if it is not the last one; see ``find_newest``."""
        return find_newest(self.save_dir)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Loads the weights of ``path`` or, with ``resume``, resumes from the last checkpoint of ``save_dir``.

        If ``resume`` is on and ``save_dir`` has no checkpoint, a new run starts from ``path``, with one line in the
        log, so that a job script can always pass ``--resume``. A checkpointer without ``checkpointables``, as for
        evaluation, raises an error in this case, because it would score other weights.

        Returns:
            The entries of the file that were not loaded into the model or a checkpointable. They include
            ``"iteration"`` if, and only if, a run was resumed.

        Raises:
            UserFileNotFoundError: the file does not exist.
            UserError: as ``load``; or this run cannot resume from the checkpoint.
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

        Returns and raises the same as ``resume_or_load``, except that a folder without a checkpoint is an error.
        """
        check_resume_path(path)
        newest = find_newest(path) if os.path.isdir(path) else find_readable(path)
        if not newest:
            raise _nothing_to_resume(path, "leave --resume out to start a new run, or name the run's folder")
        return self._resume(newest)

    def _resume(self, path: str) -> dict[str, Any]:
        self._check_resumable(read_checkpoint(path, mapped=True), path)
        rest = self.load(path, checkpointables=[])
        for name, part in self.checkpointables.items():
            if name in rest:
                try:
                    part.load_state_dict(rest.pop(name))
                except (ValueError, KeyError, RuntimeError) as error:
                    reason = " ".join(str(error).split())[:160]
                    raise UserError(
                        f"--resume: {name!r} of {path} does not fit this run ({reason}); restore the config with "
                        "which it was saved, or leave --resume out"
                    ) from error
        folder = os.path.dirname(os.path.realpath(path))
        self.resumed_in_place = os.path.isdir(self.save_dir) and os.path.samefile(folder, self.save_dir)
        return rest

    def _check_resumable(self, checkpoint: Mapping[str, Any], path: str) -> None:
        """Refuses a checkpoint that lacks the iteration or a state, before any of it is loaded."""
        if self.checkpointables:
            require(checkpoint, [*(name for name in self.checkpointables if name not in _OPTIONAL), "iteration"], path)
        for name in self.checkpointables:
            if name not in checkpoint:
                _logger.warning("%s has no %r, which was off when it was saved; it starts from scratch", path, name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Replaces detectron2's own method, which unpickles whatever a path or URL leads to."""
        checkpoint = read_checkpoint(filename, self.allow_pickle)
        return {**checkpoint, "matching_heuristics": True} if self._matching_heuristics else checkpoint

    def _advice(self) -> str:
        last = read_tag(self.save_dir)
        if not os.path.isfile(last):
            return "make room or set OUTPUT_DIR to another folder; there is no earlier checkpoint"
        return f"make room there; the earlier checkpoint {last} is intact, and --resume continues from it"


def _nothing_to_resume(folder: str, advice: str) -> UserFileNotFoundError:
    return UserFileNotFoundError(f"--resume: {folder} has no checkpoint, nothing to resume; {advice}")
