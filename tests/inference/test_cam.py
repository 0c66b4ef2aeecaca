import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from imgcls.errors import UserError
from imgcls.inference import load_checkpoint_classifier
from imgcls.inference.cam import GradCam, overlay

IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def classifier(tiny_cfg, save_classifier, require):
    require("captum")
    tiny_cfg.MODEL.CLSNET.INPUT_SIZE = 64
    return load_checkpoint_classifier(save_classifier(), "cpu")


def reference(model, images, labels):
    """Grad-CAM by the formula of its paper: gradients averaged over positions weight the feature's channels."""
    feature = model.backbone((images.float() - model.pixel_mean) / model.pixel_std)[model.in_feature]
    logits = model.head(feature)
    (gradients,) = torch.autograd.grad(logits[range(len(labels)), labels].sum(), feature)
    maps = (gradients.mean((2, 3), keepdim=True) * feature).sum(1, keepdim=True).relu()
    maps = interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = maps.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, maps / peak, maps).detach()


@pytest.mark.parametrize("conv_dim", [0, 16])
def test_maps_are_those_of_the_formula(tiny_cfg, save_classifier, conv_dim, require):
    require("captum")
    tiny_cfg.MODEL.CLSNET.HEAD_CONV_DIM, tiny_cfg.MODEL.BACKBONE.FREEZE_AT = conv_dim, 2
    classifier = load_checkpoint_classifier(save_classifier(), "cpu")
    before = classifier.probabilities(IMAGES)
    labels = [0, 2, 1]
    with torch.no_grad():  # a caller's mode does not matter
        maps = GradCam(classifier)(IMAGES, labels)
    assert maps.shape == (3, 64, 64) and not maps.requires_grad and maps.min() >= 0 and maps.max() <= 1
    assert maps.std() > 0.1
    if not conv_dim:
        torch.testing.assert_close(maps, reference(classifier.model, IMAGES, labels), rtol=1e-3, atol=1e-4)
    assert torch.equal(classifier.probabilities(IMAGES), before)
    assert all(parameter.grad is None for parameter in classifier.model.parameters())


def test_the_map_depends_on_the_class(classifier):
    cam = GradCam(classifier)
    assert not torch.allclose(cam(IMAGES[:1], [0]), cam(IMAGES[:1], [1]), atol=0.05)


def test_the_map_shows_where_the_object_is(classifier):
    """A head that measures how much of the brightest feature there is must be explained by the bright corner."""
    model = classifier.model
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[0, :, :32, :32] = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        feature = model.backbone((images.float() - model.pixel_mean) / model.pixel_std)[model.in_feature]
        corner = feature[0, :, 0, 0] - feature[0, :, -1, -1]
        model.head.linear.weight[0] = corner.clamp(min=0)
    heat = GradCam(classifier)(images[:1], [0])[0]
    assert heat[:24, :24].mean() > heat[40:, 40:].mean()


def test_a_class_that_nothing_speaks_for_has_an_empty_map(classifier):
    with torch.no_grad():
        classifier.model.head.linear.weight[1] = -1.0  # features after ReLU6 are not negative
    assert GradCam(classifier)(IMAGES, [1, 1, 1]).abs().max() == 0


def test_an_overlay_keeps_the_image_below_the_map():
    pixels = np.full((4, 4, 3), 100, np.uint8)
    heat = torch.zeros(4, 4)
    heat[0, 0] = 1
    drawn = overlay(pixels, heat)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] and drawn[3, 3, 2] > drawn[3, 3, 0]
    assert np.array_equal(overlay(pixels, heat, strength=0.0), pixels)


def test_a_missing_package_and_a_classifier_without_gradients_are_one_line(classifier, monkeypatch):
    class Other:
        info = classifier.info

    with pytest.raises(UserError, match="Grad-CAM needs the gradients of a network from a checkpoint"):
        GradCam(Other())
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r'Grad-CAM needs captum: pip install -e "\.\[cam\]"'):
        GradCam(classifier)
