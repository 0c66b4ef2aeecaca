"""detectron2's checkpointer for detectors, with a proof when the weights are a backbone of ours."""

import logging
from typing import Any

from torch import nn

from imgcls.errors import UserError

from .backbone_file import kind_of
from .files import read_checkpoint
from .handoff import Expected, check_fit, check_loaded, find_backbone
from .run_checkpointer import RunCheckpointer

_logger = logging.getLogger(__name__)


class DetectorCheckpointer(RunCheckpointer):
    """Checks a backbone checkpoint before it is loaded, and that all of it was; other files are detectron2's matter.

    Args:
        model: a detector, wrapped for distributed training or not.
        save_dir: the run's folder.
        expected: see ``build_expected``; compared with what the file says.
        keep: see ``RunCheckpointer``.
        checkpointables: what else has a state, by its name in the file.
    """

    def __init__(self, model: nn.Module, save_dir: str, *, expected: Expected, keep: int = 0, **checkpointables: Any):
        super().__init__(model, save_dir, keep=keep, **checkpointables)
        self.expected = expected

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a checkpoint; an empty path loads nothing.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, a pickle, a whole classifier, or a backbone that does not fit this detector; of any
                other file, nothing fits the backbone, or a tensor of it has another shape.
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

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """detectron2 only warns. Heads of other classes are its matter; a backbone that did not load is not."""
        incompatible = super()._load_model(checkpoint)
        # Convolutions: detectron2 makes up what is missing of a frozen norm.
        backbone = find_backbone(self.model)
        place = next(name for name, module in self.model.named_modules() if module is backbone)
        names = [f"{place}.{key}" for key, tensor in backbone.state_dict().items() if tensor.dim() == 4]
        other = [key for key, *_ in incompatible.incorrect_shapes if key in names]
        if other or (names and set(names) <= set(incompatible.missing_keys)):
            what = f"{len(other)} of {len(names)} convolutions have another shape" if other else "it has none of it"
            raise UserError(
                f"{self.source} does not fit the model's backbone: {what}; check MODEL.BACKBONE.NAME and MODEL.MNET, "
                "or convert weights of another project with tools/convert_weights.py first"
            )
        return incompatible
