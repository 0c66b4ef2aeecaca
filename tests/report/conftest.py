"""Runs as the real evaluators leave them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.modeling.losses import SigmoidLoss, SoftmaxLoss


@pytest.fixture
def make_run():
    """``make_run(folder, classes, num_images=12, multi_label=False, probabilities=True)``: writes an OUTPUT_DIR."""

    def make(
        folder: Path,
        classes: Sequence[str],
        num_images: int = 12,
        multi_label: bool = False,
        probabilities: bool = True,
        seed: int = 0,
    ) -> Path:
        (folder / "images").mkdir(parents=True)
        names = [str(folder / "images" / f"{i}.png") for i in range(num_images)]
        for i, name in enumerate(names):
            Image.fromarray(np.full((8, 8), 2 * i % 256, np.uint8)).save(name)
        generator = torch.Generator().manual_seed(seed)
        probs = (2 * torch.randn(num_images, len(classes), generator=generator)).softmax(dim=1)
        if multi_label:
            labels = (probs + 0.3 * torch.rand(probs.shape, generator=generator) > 0.5).float()
        else:
            wrong = torch.rand(num_images, generator=generator) < 0.3
            labels = torch.where(wrong, (probs.argmax(dim=1) + 1) % len(classes), probs.argmax(dim=1))
        evaluator = (MultiLabelEvaluator if multi_label else ImageNetEvaluator)(
            classes, output_dir=str(folder / "inference"), save_probabilities=probabilities
        )
        top = probs.topk(len(classes))
        loss = SigmoidLoss() if multi_label else SoftmaxLoss()
        values = (*top, probs, loss.per_image(probs.logit() if multi_label else probs.log(), labels))
        keys = ("scores", "pred_classes", "probs", "loss")
        outputs = [dict(zip(keys, row, strict=True)) for row in zip(*values, strict=True)]
        ids = list(range(num_images))
        images = torch.zeros(num_images, 1, 1, 1)
        evaluator.process({"image": images, "label": labels, "image_id": ids, "file_name": names}, outputs)
        (task, metrics), *_ = evaluator.evaluate().items()
        lines = [{"iteration": i, "total_loss": 3.0 - i / 40, "time": 0.5} for i in range(9, 50, 10)]
        lines.append({"iteration": 49, **{f"{task}/{k}": v for k, v in metrics.items()}})
        (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
        return folder

    return make
