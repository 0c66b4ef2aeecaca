"""What is read from the archives of torch before torch loads them, so that no code of a stranger runs.

``torch.export.load`` unpickles what an archive marks as pickled, evaluates its size expressions as Python, and calls
any function of torch that a graph names. TorchScript is a program, whose operators can also write files. The files of
this package need none of that, and whatever else is in a file is refused.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from imgcls.errors import UserError
from imgcls.inference.export.metadata import FILE_NAME

# In .pt2: tensors as raw bytes, their configs and the graph as JSON, our metadata, and constants of the format.
_PT2_MEMBERS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/model_\w+_config\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt|extra/imgcls\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|\.format_version"
)
_PT2_TARGET = re.compile(r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|torch\.sym_min|_operator\.\w+|")
# A size is made of symbols and numbers by these functions and operators. No power: it could compute for years.
_PT2_SIZE = re.compile(
    r"(?:Symbol|positive=True|integer=True|Integer|Add|Mul|FloorDiv|PythonMod|Min|Max|s|\d|\*(?!\*)|[-+/(), '])*"
)
_TORCHSCRIPT_OPERATOR = re.compile(r"(?<![\w.])(?:torch|ops)\.[\w.]+|torch\.classes\.[\w.]+")
_TORCHSCRIPT_ALLOWED = re.compile(r"torch\.(?!save|from_file|load)\w+|ops\.(?:aten|prim)\.(?!save|from_file|load)\w+")


def read_archive_metadata(path: str) -> str | None:
    """The metadata in a ``.pt2`` or ``.ts`` file; None if there is none.

    Raises:
        UserError: the file is truncated or damaged, or no archive of torch.
    """
    members = _read_members(path)
    return members[f"extra/{FILE_NAME}"].decode() if f"extra/{FILE_NAME}" in members else None


def check_pt2(path: str) -> None:
    """Refuses a ``.pt2`` file with anything that could run code while it is loaded or called."""
    members = _read_members(path)
    wrong = [name for name in members if not _PT2_MEMBERS.fullmatch(name)]
    if members.get("data/sample_inputs/model.pt"):
        wrong.append("data/sample_inputs/model.pt")
    texts = [data for name, data in members.items() if name.endswith(".json") and not name.startswith("extra/")]
    for text in texts:
        for key, value in _walk(_parse(text, path)):
            if (key == "use_pickle" and value) or key in ("as_custom_obj", "as_graph"):
                wrong.append(f"a {key.removeprefix('use_').removeprefix('as_')}")
            if key == "target" and isinstance(value, str) and not _PT2_TARGET.fullmatch(value):
                wrong.append(f"the function {value}")
            if key == "expr_str" and not _PT2_SIZE.fullmatch(value):
                wrong.append(f"the size {value}")
    _refuse(path, wrong)


def check_torchscript(path: str) -> None:
    """Refuses a TorchScript file with operators that reach outside of tensors."""
    members = _read_members(path).items()
    code = [data.decode("utf-8", "replace") for name, data in members if name.endswith((".py", ".pkl"))]
    used = {name for text in code for name in _TORCHSCRIPT_OPERATOR.findall(text)}
    _refuse(path, [f"the function {name}" for name in sorted(used) if not _TORCHSCRIPT_ALLOWED.fullmatch(name)])


def _read_members(path: str) -> dict[str, bytes]:
    """The files of an archive without the folder that holds all of them; checksums are verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            members = {name.partition("/")[2]: archive.read(name) for name in names}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is truncated, damaged or not an exported file ({error}); export it again") from error
    if len(members) != len(names) or len({name.partition("/")[0] for name in names}) != 1:
        raise UserError(f"{path} is not an archive that torch has written; export it again")
    return members


def _parse(text: bytes, path: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); export it again") from error


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    """All pairs of key and value, at any depth."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield key, value
        yield from _walk(value)
    for value in node if isinstance(node, list) else ():
        yield from _walk(value)


def _refuse(path: str, wrong: list[str]) -> None:
    if wrong:
        raise UserError(
            f"{path} holds {wrong[0][:100]}, which no export of imgcls has and which could run code; it was not "
            "loaded: export it again from its checkpoint"
        )
