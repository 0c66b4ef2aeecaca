"""Writes the synthetic detection set: images, COCO annotations, and a note of what they were made from."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from imgcls.data.dataset import RawDataset
from imgcls.data.image import read_image
from imgcls.data.readers.json_file import load_json
from imgcls.disk import write_folder, write_text
from imgcls.errors import UserError
from transfer.paste import Item, compose, crop_background
from transfer.sources import ITEMS, find_photographs

NOTE = "synthetic.json"
SMALLEST = 64  # the smallest items then have 10 pixels


def make_detection_set(
    out: Path, items: str, train: int = 1200, test: int = 300, size: int = 160, seed: int = 0
) -> bool:
    """Writes ``train.json``, ``test.json`` (COCO instances), folders ``train`` and ``test``, and ``synthetic.json``.

    ``train`` and ``test`` share no item (each uses that split of the item set) and no background photograph. The same
    arguments give the same bytes. Each image has the file name of its ``"background"``, and each annotation its
    ``"item"``: the ``image_id`` of the pasted image in the item set.

    Args:
        out: a new or empty folder, or one that already holds this set.
        items: ``"fashion_mnist"`` or ``"digits"``.
        train: number of training images.
        test: number of test images.
        size: side of the images, in pixels.
        seed: 0 to 2**32 - 1.

    Returns:
        Whether it was written; False if ``out`` already holds this set.

    Raises:
        UserError: an argument is out of range, ``out`` holds something else or cannot be written, or the items or the
            photographs are missing.
    """
    _check(items, train, test, size, seed)
    photographs = find_photographs()
    note = {
        "items": items,
        "train": train,
        "test": test,
        "size": size,
        "seed": seed,
        "backgrounds": {split: [path.name for path in paths] for split, paths in photographs.items()},
    }
    if _holds(out, note):
        return False

    def write(folder: Path) -> None:
        for stream, split in enumerate(("train", "test")):
            seeds = [[seed, stream, number] for number in range(note[split])]
            content = _write_split(folder / split, ITEMS[items](split), photographs[split], seeds, size)
            write_text(folder / f"{split}.json", json.dumps(content))
        write_text(folder / NOTE, json.dumps(note, indent=2) + "\n")

    write_folder(out.resolve(), write, "name a folder that you can write")
    return True


def _check(items: str, train: int, test: int, size: int, seed: int) -> None:
    if items not in ITEMS:
        raise UserError(f"items are {items!r}; allowed: {', '.join(ITEMS)}")
    for name, value, least in (("train", train, 1), ("test", test, 1), ("size", size, SMALLEST)):
        if value < least:
            raise UserError(f"{name} is {value}; allowed: {least} or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; allowed: 0 to {2**32 - 1}")


def _holds(out: Path, note: dict) -> bool:
    """Returns whether ``out`` already holds this set, and False if it is new or empty.

    Raises:
        UserError: it holds something else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; name a new or empty folder")
    if (out / NOTE).is_file():
        known = load_json(str(out / NOTE))
        if known == note:
            return True
        known = known if isinstance(known, dict) else {}
        differences = [
            f"{key} is {known.get(key)}, not {value}" for key, value in note.items() if known.get(key) != value
        ]
        raise UserError(f"{out} holds another set ({'; '.join(differences)}); remove it, or name another folder")
    if any(out.iterdir()):
        raise UserError(f"{out} is not empty and has no {NOTE}; name a new or empty folder")
    return False


class _Items(Sequence[Item]):
    """The items of a raw dataset, read on access."""

    def __init__(self, raw: RawDataset):
        self.records = raw.records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        # Items are grey: their three channels are equal.
        return Item(read_image(record["file_name"])[:, :, 0], record["label"], record["image_id"])


def _write_split(folder: Path, raw: RawDataset, photographs: list[Path], seeds: list[list[int]], size: int) -> dict:
    """Writes one image per seed and returns their COCO annotations."""
    items = _Items(raw)
    backgrounds = [read_image(str(path), "RGB") for path in photographs]
    images: list[dict] = []
    annotations: list[dict] = []
    folder.mkdir()
    for image_id, seed in enumerate(tqdm(seeds, desc=f"writing {folder.name} images"), 1):
        random = np.random.RandomState(seed)  # NumPy guarantees its stream, and not that of default_rng
        chosen = int(random.randint(len(backgrounds)))
        image = crop_background(random, backgrounds[chosen], size)
        for item, box in compose(random, image, items):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCO's evaluation reads 0 as "no match"
                    "image_id": image_id,
                    "category_id": item.label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "item": item.image_id,
                }
            )
        file_name = f"{image_id:05d}.png"
        Image.fromarray(image).save(folder / file_name)
        background = photographs[chosen].name
        images.append({"id": image_id, "file_name": file_name, "width": size, "height": size, "background": background})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(raw.classes)]
    info = {"description": "items pasted on photographs, made by tools/make_synthetic_detection_set.py"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
