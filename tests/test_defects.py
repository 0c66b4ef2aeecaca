"""The defects of the 2020 project and its fork, none of which may come back.

Other files test these:

 5 tests/modeling/test_mobilenet.py (output_shape), tests/modeling/test_head.py
 6 tests/modeling/test_mobilenet.py::test_frozen_stages_keep_every_bit_in_training
 7 tests/checkpoint (test_data_parallel_prefix_is_read, and missing tensors are an error)
 8 tests/test_architecture.py::test_import_changes_no_default_and_reads_no_data
 9 tests/modeling/test_losses.py::test_extreme_logits_stay_finite
10 tests/modeling/test_clsnet.py::test_softmax_inference_needs_no_labels
11 tests/data/test_loader.py::test_evaluation_uses_the_classes_of_training
12 tests/checkpoint (--resume with a missing file is an error)
13 every test that imports imgcls.engine, with the installed detectron2
15 tests/data/readers (paths relative to the JSON)
"""

import inspect
import os
from itertools import islice

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from imgcls.data import ClsDatasetMapper, build_train_loader, read_datasets
from imgcls.evaluation import ImageNetEvaluator
from imgcls.modeling import ClsNet


def test_1_means_and_images_have_the_same_value_range(tiny_cfg, tmp_path):
    """The mean colour must become 0, and white about 2.4 standard deviations."""
    tiny_cfg.MODEL.PIXEL_STD = [57.375, 57.120, 58.395]
    model = build_model(tiny_cfg).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for rgb in ((124, 116, 104), (255, 255, 255)):
        Image.new("RGB", (40, 40), rgb).save(tmp_path / "flat.png")
        model([ClsDatasetMapper(tiny_cfg, is_train=False)({"file_name": str(tmp_path / "flat.png"), "label": 0})])
    assert seen[0].abs().max() < 0.01
    torch.testing.assert_close(seen[1].mean((0, 2, 3)), torch.tensor([2.6400, 2.4286, 2.2489]), atol=1e-3, rtol=0)


def test_2_one_forward_serves_training_and_evaluation():
    assert [name for name, _ in inspect.getmembers(ClsNet, inspect.isfunction) if name.startswith("forward")] == [
        "forward"
    ]


@pytest.mark.parametrize("is_train", [True, False])
def test_3_images_have_the_input_size_instead_of_800_pixels(tiny_cfg, tmp_path, is_train):
    Image.new("RGB", (640, 480)).save(tmp_path / "large.png")
    sample = ClsDatasetMapper(tiny_cfg, is_train)({"file_name": str(tmp_path / "large.png"), "label": 0})
    assert sample["image"].shape == (3, tiny_cfg.MODEL.CLSNET.INPUT_SIZE, tiny_cfg.MODEL.CLSNET.INPUT_SIZE)


def test_4_metrics_cover_all_processes_and_any_k(monkeypatch):
    """Scoring only the local predictions would give 100 %."""
    mine, other = (ImageNetEvaluator(list("abc"), topk=(1, 2)) for _ in range(2))
    for evaluator, label, image_id in ((mine, 0, 0), (other, 1, 1)):
        evaluator.process(
            [{"image": torch.zeros(3, 1, 1), "label": label, "image_id": image_id}],
            [{"pred_classes": torch.tensor([0, 1]), "scores": torch.tensor([0.6, 0.3])}],
        )
    parts = [other._predictions]
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda local, dst=0: [local, *parts])
    result = mine.evaluate()["accuracy"]
    assert result["top1"] == 50 and result["top2"] == 100 and result["balanced"] == 50


def test_14_labels_and_predictions_need_not_be_contiguous():
    classes = (torch.arange(6) % 3).reshape(3, 2)
    assert not classes[:, 0].is_contiguous()
    evaluator = ImageNetEvaluator(list("abc"), topk=(1, 2), distributed=False)
    evaluator.process(
        {"image": torch.zeros(3, 3, 1, 1), "label": classes[:, 0], "image_id": [0, 1, 2]},
        [{"pred_classes": row, "scores": torch.tensor([0.6, 0.3])} for row in classes],
    )
    assert evaluator.evaluate()["accuracy"]["top1"] == 100.0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_16_a_batch_needs_one_shared_memory_handle(tiny_cfg):
    """One handle per image fails with 'too many open files' at batch 512; this keeps 5 batches of 64."""
    tiny_cfg.DATALOADER.NUM_WORKERS, tiny_cfg.SOLVER.IMS_PER_BATCH = 1, 64
    before = len(os.listdir("/proc/self/fd"))
    loader = build_train_loader(tiny_cfg, read_datasets(tiny_cfg.DATASETS.TRAIN, ()).train)
    kept = list(islice(iter(loader), 5))
    assert len(kept) == 5 and len(os.listdir("/proc/self/fd")) - before < 64
