"""detectron2's own export of detectors works on our backbones: a traced one finds the boxes of the eager one."""

import numpy as np
import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from torch import nn

from imgcls.config import load_cfg

SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.MNET.WIDTH_MULT", "0.25", "MODEL.MNET.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CLASSES", "3", "MODEL.ROI_HEADS.NUM_CLASSES", "3",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "64", "MODEL.RPN.PRE_NMS_TOPK_TEST", "100", "MODEL.RPN.POST_NMS_TOPK_TEST", "50",
    "MODEL.RETINANET.SCORE_THRESH_TEST", "0.05", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05",
]  # fmt: skip


@torch.no_grad()
def with_scores(model, images):
    """Gives an untrained detector statistics of images, and classification scores that differ between boxes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.backbone.train()(model.preprocess_image([{"image": image} for image in images]).tensor)
    model.eval()
    model.eval()
    for module in [module for name, module in model.named_modules() if name.endswith("cls_score")]:
        module.bias.zero_()
        outputs: list[torch.Tensor] = []
        hook = module.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output.clone()))
        model([{"image": image} for image in images])
        hook.remove()
        module.weight.div_(torch.cat([output.flatten() for output in outputs]).std())
    return model


def retinanet(model, image):
    return model([{"image": image}])[0]["instances"]


def faster_rcnn(model, image):
    return model.inference([{"image": image}], do_postprocess=False)[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["mnetv1", "mnetv2"])
@pytest.mark.parametrize("infer", [retinanet, faster_rcnn], ids=lambda infer: infer.__name__)
def test_a_traced_detector_finds_the_same_boxes(request, infer, version):
    config = request.config.rootpath / f"configs/COCO-Detection/{infer.__name__}_{version}_FPN_1x.yaml"
    rng = np.random.default_rng(4)
    # Two sizes: the trace must hold for another image than its own.
    images = [
        nn.functional.interpolate(torch.from_numpy(rng.uniform(0, 255, (1, 3, 6, 8))).float(), size, mode="bicubic")[0]
        for size in ((96, 128), (160, 96))
    ]
    images = [image.clamp(0, 255).to(torch.uint8) for image in images]
    torch.manual_seed(3)
    model = with_scores(build_model(load_cfg(str(config), SMALL)), images[:1])
    with torch.no_grad():
        adapter = TracingAdapter(model, images[0], infer)
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        for image in images:
            expected, found = infer(model, image), adapter.outputs_schema(traced(image))
            assert len(expected) >= 10 and len(found) == len(expected)
            boxes = expected.pred_boxes.tensor
            assert ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1).any() and expected.scores.std() > 1e-3
            torch.testing.assert_close(found.pred_boxes.tensor, boxes, rtol=0, atol=1e-3)
            torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
            assert torch.equal(found.pred_classes, expected.pred_classes)
        assert not torch.equal(infer(model, images[0]).scores[:10], infer(model, images[1]).scores[:10])
