"""``folder:PATH``: one sub-folder for each class."""

import os
from collections.abc import Iterator
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

from imgcls.data.dataset import RawDataset
from imgcls.errors import UserError, UserFileNotFoundError


def read_folder(path: str, training: bool) -> RawDataset:
    """Reads the images at any depth below each first-level sub-folder of ``path``, whose name is the class.

    If the set is for ``training``, every class needs an image; a test set may lack some.

    Raises:
        UserError: the folder is missing, has no sub-folders or no images, or a class to train on has no image.
    """
    classes = class_folders(path)
    records: list[dict] = []
    empty = []
    for label, name in enumerate(classes):
        before = len(records)
        for file in images_below(path, name):
            image_id = file.replace(os.sep, "/")
            records.append({"file_name": os.path.join(path, file), "image_id": image_id, "label": label})
        if len(records) == before:
            empty.append(name)
    if not records:
        raise UserError(f"{path}: no images in its sub-folders; an image ends with {', '.join(IMG_EXTENSIONS)}")
    if training and empty:
        raise UserError(
            f"{path}: no images in {len(empty)} of {len(classes)} class folders ({', '.join(empty[:5])}"
            f"{', ...' if len(empty) > 5 else ''}); add some or remove the folders"
        )
    return RawDataset(records, classes, True, False, path)


def class_folders(path: str) -> list[str]:
    """The sorted names of the sub-folders that are not hidden.

    Raises:
        UserError: the folder is missing, or has no sub-folder.
    """
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except FileNotFoundError:
        raise UserFileNotFoundError(f"{path}: no such folder") from None
    except OSError as error:
        _cannot_list(error)
    classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if classes:
        return classes
    if any(_is_image(entry.name) for entry in entries):
        raise UserError(f"{path}: has images but no class sub-folders; expected {path}/CLASS/IMAGE")
    raise UserError(f"{path}: has no class sub-folders with images; expected {path}/CLASS/IMAGE")


def images_below(root: str, name: str) -> Iterator[str]:
    """The images at any depth of class folder ``name``, as paths relative to ``root``, always in the same order.

    Symbolic links to folders are followed, but no folder is read twice.
    """
    seen = {_identity(root)}  # a link to the root would add the other classes
    for folder, folders, files in os.walk(os.path.join(root, name), onerror=_cannot_list, followlinks=True):
        identity = _identity(folder)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        below = os.path.relpath(folder, root)
        for file in sorted(files):
            if _is_image(file):
                yield os.path.join(below, file)


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _cannot_list(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: cannot be read as a folder ({error.strerror})") from None
