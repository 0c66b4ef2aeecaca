import numpy as np
import pytest
from PIL import Image
from pycocotools import mask
from transfer import paste as module
from transfer.paste import Item, compose, crop_background, cut_out, paste


def blob(width, height, seed=0):
    """A filled ellipse with a dark hole, off the centre of a 28x28 image."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:28, :28]
    inside = ((x - 13) / width * 2) ** 2 + ((y - 12) / height * 2) ** 2 <= 1
    image = np.where(inside, random.randint(30, 256, (28, 28)), random.randint(0, 10, (28, 28)))
    image[12, 13] = 0
    return image.astype(np.uint8)


def changed(item, top, left, brightness, size=120):
    """Which pixels `paste` changes: each of them is visible on white or on black."""
    seen = np.zeros((size, size), bool)
    boxes = set()
    for colour in (0, 255):
        image = np.full((size, size, 3), colour, np.uint8)
        boxes.add(paste(image, item, top, left, brightness))
        seen |= (image != colour).any(2)
    assert len(boxes) == 1
    return seen, boxes.pop()


def hull(seen):
    rows, columns = np.nonzero(seen)
    return columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()


@pytest.mark.parametrize("side", [10, 24, 43, 72])
@pytest.mark.parametrize(("width", "height"), [(26, 24), (8, 24), (26, 6)])
@pytest.mark.parametrize("brightness", [0.5, 1.0])
def test_the_box_contains_exactly_the_changed_pixels(side, width, height, brightness):
    item = cut_out(blob(width, height), side)
    seen, box = changed(item, 31, 17, brightness)
    assert box == hull(seen) == (17, 31, item.shape[1], item.shape[0])
    assert abs(max(item.shape) - side) <= 4
    assert min(item.shape) / max(item.shape) == pytest.approx(min(width, height) / max(width, height), abs=0.25)


def test_the_box_leaves_out_a_transparent_border():
    item = np.full((30, 40), module.CLEAR, np.uint8)
    item[5:12, 8:29] = 200
    seen, box = changed(item, 50, 60, 1.0)
    assert box == hull(seen) == (68, 55, 21, 7)


def test_pixels_are_blended():
    """Transparent: the background; opaque: the item times its brightness; halfway: half of each."""
    half = (module.CLEAR + module.OPAQUE) // 2
    image = np.zeros((1, 4, 3), np.uint8)
    image[:] = (200, 100, 0)
    paste(image, np.array([[0, half, 255, 100]], np.uint8), 0, 0, 0.8)
    mixed = [round(0.5 * colour + 0.5 * half * 0.8) for colour in (200, 100, 0)]
    assert image[0].tolist() == [[200, 100, 0], mixed, [204] * 3, [80] * 3]


def test_a_blank_item_is_not_pasted():
    assert cut_out(np.full((28, 28), module.CLEAR, np.uint8), 40).size == 0
    image = np.full((96, 96, 3), 7, np.uint8)
    blank = [Item(np.zeros((28, 28), np.uint8), 0, 0)]
    assert all(compose(np.random.RandomState(seed), image, blank) == [] for seed in range(5))
    assert (image == 7).all()


def ious(boxes):
    boxes = np.asarray(boxes, np.float64)
    return mask.iou(boxes, boxes, np.zeros(len(boxes))) - np.eye(len(boxes))


ITEMS = [Item(blob(w, h, seed), seed, 100 + seed) for seed, (w, h) in enumerate([(26, 24), (8, 24), (26, 6)])]


def test_one_to_four_items_lie_inside_and_apart():
    counts, chosen, sides = set(), set(), []
    for seed in range(150):
        image = np.zeros((160, 160, 3), np.uint8)
        pasted = compose(np.random.RandomState(seed), image, ITEMS)
        boxes = [box for _, box in pasted]
        assert all(x >= 0 and y >= 0 and x + w <= 160 and y + h <= 160 for x, y, w, h in boxes)
        assert ious(boxes).max() <= 0.1
        counts.add(len(pasted))
        chosen |= {item.image_id for item, _ in pasted}
        sides += [max(w, h) for _, _, w, h in boxes]
    assert counts == {1, 2, 3, 4}
    assert chosen == {100, 101, 102}
    assert 20 <= min(sides) <= 30 and 66 <= max(sides) <= 76


def test_an_item_without_free_space_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "SIDES", (0.45, 0.45))
    monkeypatch.setattr(module, "MOST_ITEMS", 60)
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = [box for _, box in compose(np.random.RandomState(3), image, ITEMS[:1])]
    assert 2 <= len(boxes) <= 7
    assert ious(boxes).max() <= 0.1


def test_overlap_is_relative_to_the_smaller_box():
    """The IoU of the first pair is only 0.05."""
    assert module._covered((10, 10, 10, 10), (0, 0, 45, 45)) == 1
    assert module._covered((0, 0, 10, 10), (9, 5, 100, 100)) == pytest.approx(0.05)
    assert module._covered((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert module._covered((0, 0, 10, 10), (30, 30, 10, 10)) == 0


def test_a_background_is_a_square_of_the_photograph():
    """Red grows to the right and green downwards, by one in two pixels, so the colours show which square it is."""
    y, x = np.mgrid[:300, :500]
    photograph = np.stack([x // 2, y // 2, 0 * x], 2).astype(np.uint8)
    sides = []
    for seed in range(60):
        crop = crop_background(np.random.RandomState(seed), photograph, 64).astype(int)
        assert crop.shape == (64, 64, 3)
        across, down = (crop[0, -1] - crop[0, 0])[0], (crop[-1, 0] - crop[0, 0])[1]
        assert abs(across - down) <= 3
        assert (crop[0, 0, 1], crop[0, -1, 0]) == (crop[0, -1, 1], crop[-1, -1, 0])
        sides.append(2 * across)
    assert 90 <= min(sides) <= 140 and 260 <= max(sides) <= 300
    assert Image.fromarray(photograph).size == (500, 300)
