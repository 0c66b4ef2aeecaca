"""detectron2's checkpointer for detectors, with a proof when the weights are a backbone of ours."""

import logging
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from .backbone_file import kind_of
from .files import read_checkpoint
from .handoff import Expected, check_fit, check_loaded, find_backbone

_logger = logging.getLogger(__name__)


class DetectorCheckpointer(DetectionCheckpointer):
    """Checks a backbone checkpoint before it is loaded, and that all of it was; other files are detectron2's matter.

    Args:
        model: a detector, wrapped for distributed training or not.
        save_dir: where checkpoints are.
        expected: see ``build_expected``; compared with what the file says.
        checkpointables: as in detectron2.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, expected: Expected, **checkpointables: Any):
        super().__init__(model, save_dir, **checkpointables)
        self.expected = expected

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, a pickle, a whole classifier, or a backbone that does not fit this detector.
        """
        if not path or "://" in path:  # detectron2's model zoo
            return super().load(path, *args, **kwargs)
        checkpoint = read_checkpoint(path)
        if "imgcls" not in checkpoint and kind_of(checkpoint["model"]) != "classifier":
            return super().load(path, *args, **kwargs)
        backbone = find_backbone(self.model)
        check_fit(checkpoint, backbone, self.expected, path)
        rest = super().load(path, *args, **kwargs)
        _logger.info("%s: %s", path, check_loaded(checkpoint, backbone, path).summary())
        return rest
