"""Names of the 2020 project that a config file may still use."""

import logging
from collections.abc import Sequence

LAST_STAGE = "mob5"

_logger = logging.getLogger(__name__)


def feature_names(names: Sequence[str], key: str) -> list[str]:
    """Feature names with ``"linear"`` read as the last stage.

    The 2020 project had its classifier inside the backbone, under this name; here it is in the head,
    which reads the last stage.

    Args:
        names: the value of a config key.
        key: the name of that key, for the log.
    """
    if "linear" not in names:
        return list(names)
    _logger.info('%s: "linear" is read as "%s"; the classifier is MODEL.CLSNET\'s head now', key, LAST_STAGE)
    replaced = [LAST_STAGE if name == "linear" else name for name in names]
    return list(dict.fromkeys(replaced))
