"""``json:PATH``: a list of records."""

import json
import os

from imgcls.data.datasets.files import read_text
from imgcls.data.datasets.records import Listing, check_records
from imgcls.errors import UserError


def read_json(path: str) -> Listing:
    """Reads ``[{"file_name": ..., "label": 3, "class": "cat"}, ...]``.

    ``file_name`` is relative to the JSON's folder, or absolute. ``"labels": [0, 3]`` makes the set
    multi-label. ``"class"`` (a name, or one name for each of ``"labels"``) is optional, and so is
    ``"image_id"``, which is else the ``file_name``; other keys stay.

    Raises:
        UserError: names the file and the record that cannot be used.
    """
    return check_records(load_json(path), path, os.path.dirname(path))


def load_json(path: str) -> object:
    """Whatever a JSON file holds.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deep for a list of records") from None
