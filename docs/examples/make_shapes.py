"""Draws circles, squares and triangles: a folder of images for a classifier, and a COCO set for a detector.

python make_shapes.py

``images/{train,val}/CLASS/*.jpg`` shows one shape an image, ``boxes/{train,val}/*.jpg`` with ``boxes/{train,val}.json``
several, each with its box.
"""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")


def draw(image: Image.Image, name: str, x: int, y: int, size: int) -> None:
    """One shape in a random colour, with its upper left corner at (x, y)."""
    pen = ImageDraw.Draw(image)
    colour = tuple(random.randrange(120, 256) for _ in range(3))
    if name == "circle":
        pen.ellipse((x, y, x + size, y + size), fill=colour)
    elif name == "square":
        pen.rectangle((x, y, x + size, y + size), fill=colour)
    else:
        pen.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill=colour)


def background(side: int) -> Image.Image:
    """Dark noise."""
    return Image.effect_noise((side, side), 40).point(lambda value: value // 3).convert("RGB")


def write_classes(folder: Path, per_class: int) -> None:
    """A sub-folder for each class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            image = background(96)
            size = random.randrange(30, 70)
            draw(image, name, random.randrange(90 - size), random.randrange(90 - size), size)
            image.save(folder / name / f"{number:03}.jpg")


def write_boxes(folder: Path, count: int) -> None:
    """Images with a shape in some of their four quarters, and annotations in COCO's format."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image = background(160)
        for left, top in random.sample([(0, 0), (80, 0), (0, 80), (80, 80)], random.randint(1, 3)):
            label, size = random.randrange(3), random.randrange(30, 60)
            x, y = left + random.randrange(78 - size), top + random.randrange(78 - size)
            draw(image, CLASSES[label], x, y, size)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0,
                 "bbox": [x, y, size, size], "area": size * size}
            )  # fmt: skip
        image.save(folder / f"{number:03}.jpg")
        images.append({"id": number, "file_name": f"{number:03}.jpg", "width": 160, "height": 160})
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    folder.with_suffix(".json").write_text(json.dumps(content))


if __name__ == "__main__":
    random.seed(0)
    write_classes(Path("images/train"), 40)
    write_classes(Path("images/val"), 10)
    write_boxes(Path("boxes/train"), 64)
    write_boxes(Path("boxes/val"), 16)
