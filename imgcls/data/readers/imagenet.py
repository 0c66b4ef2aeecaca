"""ImageNet 2012: reads its JSON files, and makes them from the image folders."""

import json
import os
import shlex
from pathlib import Path

from tqdm import tqdm

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.folder import class_folders, images_below
from imgcls.data.readers.json_file import index_json, read_json
from imgcls.disk import datasets_root, write_text
from imgcls.errors import UserError, UserFileNotFoundError


def read_imagenet(split: str) -> RawDataset:
    """Reads ``DETECTRON2_DATASETS/ImageNet2012/imagenet_detectron2_<split>.json``.

    Raises:
        UserError: the file is missing (the message has the command that creates it) or invalid.
    """
    folder = datasets_root() / "ImageNet2012"
    path = folder / _json_name(split)
    if not path.is_file():
        where = shlex.quote(str(folder))
        raise UserFileNotFoundError(
            f"{path}: no such file; make it with: python tools/make_imagenet_json.py --root {where} --save {where} "
            "(--root: the folder with ILSVRC2012_img_train and ILSVRC2012_img_val), or set DETECTRON2_DATASETS"
        )
    return read_json(str(path))


def make_imagenet_json(root: Path, save: Path, index: bool = False) -> list[Path]:
    """Lists the images below ``root`` in ``save/imagenet_detectron2_{train,val}.json``; returns the written files.

    A third file, ``class_to_idx.json``, maps the names of the training folders to labels, in sorted order. Both splits
    use these labels. Each ``file_name`` is relative to ``save``. The same images always produce the same bytes.

    Args:
        root: a folder with ``ILSVRC2012_img_train`` and ``ILSVRC2012_img_val``, or ``train`` and ``val``.
        save: created if it does not exist.
        index: whether to write the indexes of both splits too (`index_json`).

    Raises:
        UserError: a split or its images are missing, ``val`` has a class that ``train`` does not have, or ``save``
            cannot be written.
    """
    folders = {split: _split_folder(root, split) for split in ("train", "val")}
    class_to_idx = {name: i for i, name in enumerate(class_folders(str(folders["train"])))}
    contents: dict[str, object] = {
        _json_name(split): _list_records(folder, save, class_to_idx, split) for split, folder in folders.items()
    }
    contents["class_to_idx.json"] = class_to_idx
    for name, content in contents.items():
        write_text(save / name, json.dumps(content))
    written = [save / name for name in contents]
    if index:
        written += [index_json(str(save / _json_name(split))) for split in folders]
    return written


def _json_name(split: str) -> str:
    return f"imagenet_detectron2_{split}.json"


def _split_folder(root: Path, split: str) -> Path:
    names = (f"ILSVRC2012_img_{split}", split)
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserFileNotFoundError(f"{root}: has no folder {' or '.join(names)}; --root names the folder above them")


def _list_records(folder: Path, save: Path, class_to_idx: dict[str, int], split: str) -> list[dict]:
    # Both are resolved because ".." after a symbolic link does not lead to the folder that contains the link.
    prefix = os.path.relpath(folder.resolve(), save.resolve())
    classes = class_folders(str(folder))
    unknown = [name for name in classes if name not in class_to_idx]
    if unknown:
        raise UserError(f"{folder}: the class {unknown[0]} is not among the {len(class_to_idx)} of the training folder")
    records: list[dict] = []
    for name in tqdm(classes, desc=f"{split} classes"):
        before = len(records)
        for file in images_below(str(folder), name):
            records.append(
                {
                    "file_name": os.path.join(prefix, file).replace(os.sep, "/"),
                    "image_id": len(records) + 1,
                    "label": class_to_idx[name],
                    "class": name,
                }
            )
        if len(records) == before and split == "train":
            raise UserError(f"{folder / name}: no images in this class folder")
    if not records:
        raise UserError(f"{folder}: no images in its sub-folders")
    return records
