import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from imgcls.config import get_cfg
from imgcls.data.crop import EvalCrop, TrainCrop
from imgcls.data.transforms import RandomFlip, augmentations, build_augmentations, build_crop


@pytest.fixture
def square():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return torch.from_numpy(np.array(small.resize((32, 32), Image.BICUBIC))).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("flip", "theirs"), [("horizontal", v2.RandomHorizontalFlip), ("vertical", v2.RandomVerticalFlip)]
)
def test_flip_matches_torchvision(flip, theirs, square):
    augment, expected = augmentations(flip), theirs(0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        ours = augment(square)
        torch.manual_seed(seed)
        assert torch.equal(ours, expected(square))


@pytest.mark.parametrize(("flip", "dim"), [("horizontal", 2), ("vertical", 1)])
def test_flip_reverses_one_dimension(flip, dim, square):
    augment = augmentations(flip)
    seen = {tuple(augment(square).flatten().tolist()) for _ in range(30)}
    assert seen == {tuple(square.flatten().tolist()), tuple(square.flip(dim).flatten().tolist())}


def test_no_flip(square):
    augment = augmentations("none")
    assert all(torch.equal(augment(square), square) for _ in range(10))


def test_erasing_and_augmentation():
    square = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    erased = augmentations("none", erasing=1.0)(square)
    assert (erased == 0).any() and (erased == 200).any()
    for name, kind in (("trivialaugment", v2.TrivialAugmentWide), ("randaugment", v2.RandAugment)):
        assert kind in [type(step) for step in augmentations(augmentation=name)]


def test_augmentations_do_not_depend_on_the_memory_format(square):
    augment = augmentations(augmentation="trivialaugment", erasing=0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        channels_last = augment(square)
        torch.manual_seed(seed)
        assert torch.equal(channels_last, augment(square.contiguous()))


def test_building_from_a_config():
    cfg = get_cfg()
    cfg.MODEL.CLSNET.INPUT_SIZE = 40
    cfg.INPUT.CROP_SCALE, cfg.INPUT.CROP_RATIO, cfg.INPUT.RANDOM_FLIP = [0.5, 0.6], [0.9, 1.1], "vertical"
    cfg.INPUT.AUGMENTATION, cfg.INPUT.RANDOM_ERASING, cfg.INPUT.CROP_PCT = "randaugment", 0.3, 0.8
    crop = build_crop(cfg, is_train=True)
    assert isinstance(crop, TrainCrop) and (crop.size, crop.scale, crop.ratio) == (40, (0.5, 0.6), (0.9, 1.1))
    flip, augment, erase = build_augmentations(cfg, is_train=True)
    assert isinstance(flip, RandomFlip) and flip.dim == -2 and isinstance(augment, v2.RandAugment) and erase.p == 0.3
    crop = build_crop(cfg, is_train=False)
    assert isinstance(crop, EvalCrop) and (crop.size, crop.short) == (40, 50)
    assert len(build_augmentations(cfg, is_train=False)) == 0
