"""What an exported file says about itself, as one JSON text: everything that a prediction needs besides the network."""

import json
from collections.abc import Mapping, Sequence

from imgcls import __version__
from imgcls.errors import UserError
from imgcls.inference.classifier import ClassifierInfo, check_class_names

KEY = "imgcls"
"""The name under which each format stores the text."""
FILE_NAME = "imgcls.json"
"""The same in formats that are archives of files."""
_FORMAT = 1
# Files that resize images themselves: a reader of format 1 would give them images that are resized already.
_RESIZING_FORMAT = 2
_AGAIN = "export it again from its checkpoint: imgcls export CHECKPOINT OUT"
# The entries that are read; others are for people and other programs.
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "classes": list,
    "multi_label": bool,
    "thresholds": (list, type(None)),
    "temperature": (int, float),
    "preprocessing": dict,
    "evaluation": dict,
    "input": dict,
}
_PREPROCESSING = ("format", "pixel_mean", "pixel_std", "input_size", "crop_pct")


def build_metadata(info: ClassifierInfo, checkpoint_sha256: str, nhwc: bool, resize: bool = False) -> str:
    """The metadata of a file that is exported from a checkpoint; arguments as for ``ExportGraph``."""
    sides = ["height", "width"] if resize else [info.input_size, info.input_size]
    content = {
        "format": _RESIZING_FORMAT if resize else _FORMAT,
        "version": __version__,
        "checkpoint_sha256": checkpoint_sha256,
        "classes": info.classes,
        "multi_label": info.multi_label,
        "thresholds": info.thresholds,
        "temperature": info.temperature,
        "input": {
            "layout": "NHWC" if nhwc else "NCHW",
            "shape": ["batch", *sides, 3] if nhwc else ["batch", 3, *sides],
            "dtype": "uint8",
            "value_range": [0, 255],
            "channel_order": info.contract["format"],
        },
        # What to do with an image of any size, unless it is inside as normalisation is.
        "preprocessing": {
            **info.contract,
            "resize_rule": "resize the short side to round(input_size / crop_pct), crop the centre",
            "input_size": info.input_size,
            "crop_pct": info.crop_pct,
            "interpolation": "bilinear",
            "antialias": True,
            "resize_inside": resize,
        },
        "output": {"meaning": "probabilities", "normalisation_inside": True, "temperature_inside": True},
        "evaluation": {"topk": list(info.topk), "threshold": info.threshold},
    }
    return json.dumps(content, indent=1)


def read_info(
    text: str | None, path: str, device: str, classes: Sequence[str] | None = None
) -> tuple[ClassifierInfo, bool]:
    """Reads the metadata of a file.

    Args:
        text: from ``build_metadata``; None if the file has none.
        path: of the file.
        device: where the network will run.
        classes: names to use instead of those in the file.

    Returns:
        The info, and whether images are ``(N, H, W, 3)``.

    Raises:
        UserError: there is no metadata, or it is of another version or incomplete.
    """
    if not text:
        raise UserError(
            f"{path} was not exported by imgcls: it does not say its class names, and how images are resized, ordered "
            "and normalised for it (no 'imgcls' metadata); names alone (--classes) are not enough, export it from a "
            "checkpoint of imgcls: imgcls export CHECKPOINT OUT"
        )
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: its imgcls metadata is damaged ({error}); {_AGAIN}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version not in (_FORMAT, _RESIZING_FORMAT):
        written = content.get("version", "an unknown version") if isinstance(content, dict) else "an unknown version"
        raise UserError(
            f"{path}: its imgcls metadata has format {version!r}, of imgcls {written}; this is {__version__}, which "
            f"reads {_FORMAT} and {_RESIZING_FORMAT}: {_AGAIN}"
        )
    wrong = [name for name, kind in _TYPES.items() if not isinstance(content.get(name), kind)]
    wrong += [f"preprocessing.{name}" for name in _PREPROCESSING if name not in content.get("preprocessing", {})]
    if wrong:
        raise UserError(f"{path}: its imgcls metadata has no valid {', '.join(wrong)}; {_AGAIN}")
    contract, evaluation = content["preprocessing"], content["evaluation"]
    if classes is not None:
        check_class_names(classes, len(content["classes"]), path)
    info = ClassifierInfo(
        classes=list(content["classes"] if classes is None else classes),
        multi_label=content["multi_label"],
        thresholds=content["thresholds"],
        temperature=float(content["temperature"]),
        contract=contract,
        input_size=int(contract["input_size"]),
        crop_pct=float(contract["crop_pct"]),
        source=path,
        device=device,
        topk=tuple(evaluation.get("topk", (1, 5))),
        threshold=float(evaluation.get("threshold", 0.5)),
        resize_inside=version == _RESIZING_FORMAT,
    )
    return info, content["input"].get("layout") == "NHWC"
