"""The compared networks have the same architecture and get the same images."""

import torch
from benchmark.networks import normalised, our_network, read_batch, timm_network
from benchmark.peers import MEAN, STD


def test_both_have_the_papers_parameters():
    assert sum(p.numel() for p in our_network(1.0).parameters()) == 4_231_976
    assert sum(p.numel() for p in timm_network().parameters()) == 4_231_976
    assert sum(p.numel() for p in our_network(0.25).parameters()) == 470_072


def test_timm_runs_channels_last():
    assert timm_network().conv_stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_real_images_and_random_labels(images):
    data = read_batch(images, 4)
    assert data["image"].shape == (4, 3, 224, 224) and data["image"].dtype is torch.uint8
    assert data["image"].float().std() > 10
    assert data["label"].shape == (4,) and data["label"].dtype is torch.int64


def test_normalised_is_what_timms_loader_does():
    images = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)
    result = normalised(images)
    assert torch.allclose(result[1, :, 2, 2], (0.2 - torch.tensor(MEAN)) / torch.tensor(STD))
    assert result.is_contiguous(memory_format=torch.channels_last)
