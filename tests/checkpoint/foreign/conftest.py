"""Compares a converted file with the network that its weights come from."""

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from imgcls.config import check_cfg, get_cfg

STAGES = ["mob2", "mob3", "mob4", "mob5"]


@pytest.fixture
def raw():
    """Two RGB images, 0-255, one darker than the other."""
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    images[1] //= 2
    return images


def settle(net, images):
    """Gives every norm its own scale, shift and statistics, as training does; the statistics fit the data.

    The mean scale is below 1, because a random network would otherwise amplify rounding errors a hundredfold.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
        for norm in norms:
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.3)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.4, 1.2)
        nn.init.normal_(norm.bias, std=0.3)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.normal_(linear.bias)
    return net.eval()


def build(converted):
    """Returns the ``ClsNet`` that the config in the file builds, with all four features, and that config."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(converted["imgcls"]["cfg"])))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.MNET.OUT_FEATURES", STAGES])
    check_cfg(cfg)
    model = build_model(cfg).eval()
    keys = model.load_state_dict(converted["model"], strict=False)
    assert keys.unexpected_keys == [] and all(key.endswith("num_batches_tracked") for key in keys.missing_keys)
    return model, cfg


def check_same(net, features, normalise, converted, raw, rounding=1e-5):
    """Compares logits and all four features with those of the source network and its normalisation."""
    model, cfg = build(converted)
    images = raw if cfg.INPUT.FORMAT == "RGB" else raw.flip(1)
    prepared = normalise(raw.float())
    with torch.no_grad():
        wanted = net(prepared)
        assert wanted.std() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.01  # they depend on the image
        torch.testing.assert_close(model.logits(images), wanted, rtol=rounding, atol=rounding)
        found = model.backbone((images - model.pixel_mean) / model.pixel_std)
        for name, feature in zip(STAGES, features(prepared), strict=True):
            torch.testing.assert_close(found[name], feature, rtol=rounding, atol=rounding)
    return cfg


def check_complete(state, converted, extra=()):
    """Checks that the converted file has each tensor of the source once, and nothing else."""
    used = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    pointers = [value.data_ptr() for name, value in used.items() if name not in extra]
    assert sorted(value.data_ptr() for value in converted["model"].values()) == sorted(pointers)
    assert all(key.startswith(("backbone.stages.", "head.")) for key in converted["model"])


@pytest.fixture(name="settle")
def settle_fixture():
    return settle


@pytest.fixture(name="build")
def build_fixture():
    return build


@pytest.fixture(name="check_same")
def check_same_fixture():
    return check_same


@pytest.fixture(name="check_complete")
def check_complete_fixture():
    return check_complete
