"""``coco:ANNOTATIONS.json:IMAGE_ROOT``: image-level labels from detection annotations."""

import os
from typing import Any

from imgcls.data.dataset import RawDataset
from imgcls.data.readers.json_file import load_json
from imgcls.errors import UserError, UserFileNotFoundError


def read_coco(paths: str) -> RawDataset:
    """Reads detection annotations as a multi-label set: the labels of an image are the categories of its instances.

    Crowd instances count too. Classes are the category names, sorted by category id. An image without instances has
    no labels. The last ``:`` of ``paths`` separates the annotation file from the image folder.

    Raises:
        UserError: a path is missing, or the file is not a COCO annotation file.
    """
    path, _, root = paths.rpartition(":")
    root = os.path.expanduser(root)
    if not path or not root:
        raise UserError(f"coco:{paths}: expected coco:ANNOTATIONS.json:IMAGE_ROOT")
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such annotation file; expected coco:ANNOTATIONS.json:IMAGE_ROOT")
    if not os.path.isdir(root):
        raise UserFileNotFoundError(f"{root}: no such folder; expected coco:ANNOTATIONS.json:IMAGE_ROOT")
    content = load_json(path)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        got = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: expected COCO annotations with the lists {', '.join(keys)}; got: {got}")
    images, annotations, categories = (content[key] for key in keys)
    try:
        categories = sorted(categories, key=lambda category: category["id"])
        classes = [category["name"] for category in categories]
        index = {category["id"]: i for i, category in enumerate(categories)}
        if len(index) != len(categories) or not all(isinstance(name, str) for name in classes):
            raise UserError(f"{path}: each category needs an id of its own and a name")
        labels: dict[Any, set[int]] = {image["id"]: set() for image in images}
        for number, annotation in enumerate(annotations, 1):
            if annotation["category_id"] not in index:
                raise UserError(f"{path}: annotation {number}: unknown category_id {annotation['category_id']!r}")
            if annotation["image_id"] not in labels:
                raise UserError(f"{path}: annotation {number}: unknown image_id {annotation['image_id']!r}")
            labels[annotation["image_id"]].add(index[annotation["category_id"]])
        records = [
            {
                "file_name": os.path.join(root, image["file_name"]),
                "image_id": image["id"],
                **{side: image[side] for side in ("height", "width") if side in image},
                "labels": sorted(labels[image["id"]]),
            }
            for image in images
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not COCO instance annotations ({type(error).__name__}: {error})") from None
    return RawDataset(records, classes, True, True, path)
