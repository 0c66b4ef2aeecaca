"""The canvas as a folder: images, COCO annotations, and a note of what it was made from."""

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

NOTE = "canvas.json"
SMALLEST = 64  # the smallest items are then 10 pixels


def make_canvas(out: Path, items: str, train: int = 1200, test: int = 300, size: int = 160, seed: int = 0) -> bool:
    """Writes ``train.json``, ``test.json`` (COCO instances), the folders ``train`` and ``test``, and ``canvas.json``.

    The items of ``test`` are of the item set's test split and its backgrounds of other photographs than those of
    ``train``. The same arguments give the same bytes. Each image names its ``"background"``, and each annotation
    its ``"item"``: the ``image_id`` of the pasted image in the item set.

    Args:
        out: a new or empty folder, or one that holds this set.
        items: ``"fashion_mnist"`` or ``"digits"``.
        train: number of training images.
        test: number of test images.
        size: side of the images, in pixels.
        seed: 0 to 2**32 - 1.

    Returns:
        Whether it was written; False where ``out`` holds this set already.

    Raises:
        UserError: an argument out of range, ``out`` holds something else or cannot be written, or the items or the
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
    """Whether ``out`` holds this very set; False where there is nothing in it.

    Raises:
        UserError: it holds something else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out}: is a file; name a new or empty folder")
    if (out / NOTE).is_file():
        known = load_json(str(out / NOTE))
        if known == note:
            return True
        known = known if isinstance(known, dict) else {}
        differences = [f"{key} {known.get(key)}, not {value}" for key, value in note.items() if known.get(key) != value]
        raise UserError(f"{out}: holds another set ({'; '.join(differences)}); remove it, or name another folder")
    if any(out.iterdir()):
        raise UserError(f"{out}: is not empty and has no {NOTE}; name a new or empty folder")
    return False


class _Items(Sequence[Item]):
    """The items of a raw, read when they are asked for."""

    def __init__(self, raw: RawDataset):
        self.records = raw.records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        # Grey images: the three channels are the same.
        return Item(read_image(record["file_name"])[:, :, 0], record["label"], record["image_id"])


def _write_split(folder: Path, raw: RawDataset, photographs: list[Path], seeds: list[list[int]], size: int) -> dict:
    """Writes one image a seed, and returns the COCO content for them."""
    items = _Items(raw)
    backgrounds = [read_image(str(path), "RGB") for path in photographs]
    images, annotations = [], []
    folder.mkdir()
    for image_id, seed in enumerate(tqdm(seeds, desc=f"writing {folder.name} images"), 1):
        random = np.random.RandomState(seed)  # its stream is frozen, default_rng's is not
        chosen = int(random.randint(len(backgrounds)))
        canvas = crop_background(random, backgrounds[chosen], size)
        for item, box in compose(random, canvas, items):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCO's evaluation takes 0 for "no match"
                    "image_id": image_id,
                    "category_id": item.label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "item": item.image_id,
                }
            )
        file_name = f"{image_id:05d}.png"
        Image.fromarray(canvas).save(folder / file_name)
        background = photographs[chosen].name
        images.append({"id": image_id, "file_name": file_name, "width": size, "height": size, "background": background})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(raw.classes)]
    info = {"description": "items pasted on photographs, made by tools/make_detection_canvas.py"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}
