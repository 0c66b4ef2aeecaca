import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import build_detector_info, write_checkpoint
from imgcls.data.image import read_image
from imgcls.errors import UserError
from imgcls.inference import Predictor
from imgcls.inference.detect import classify_boxes, load_detector
from imgcls.inference.detections import crop_box
from imgcls.inference.prediction import Ranking
from imgcls.model_zoo import get_config


@pytest.fixture
def detector_cfg(tmp_path):
    cfg = get_config("COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml")
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", "3", "INPUT.MIN_SIZE_TEST", "128",
         "INPUT.MAX_SIZE_TEST", "256", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()",
         "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "6"]
    )  # fmt: skip
    cfg.MODEL.WEIGHTS = str(tmp_path / "detector.pth")
    return cfg


@pytest.fixture
def weights(detector_cfg) -> str:
    """A checkpoint of a detector with random weights, whose scores are not all the same."""
    torch.manual_seed(3)
    cfg = detector_cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    model = build_model(cfg)
    torch.nn.init.normal_(model.head.cls_score.weight, std=3.0)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    entries = {"model": model.state_dict(), "imgcls": build_detector_info(cfg)}
    write_checkpoint(detector_cfg.MODEL.WEIGHTS, entries)
    return detector_cfg.MODEL.WEIGHTS


@pytest.fixture
def image(tmp_path) -> str:
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    path = str(tmp_path / "image.png")
    small.resize((160, 120), Image.Resampling.NEAREST).save(path)
    return path


@pytest.mark.parametrize("form", ["config", "checkpoint"])
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_boxes_are_those_of_detectron2s_predictor(detector_cfg, weights, image, tmp_path, form, image_format):
    detector_cfg.INPUT.FORMAT = image_format
    if image_format == "RGB":
        entries = torch.load(weights)
        write_checkpoint(weights, {**entries, "imgcls": build_detector_info(detector_cfg)})
    source = str(tmp_path / "config.yaml")
    with open(source, "w") as file:
        file.write(detector_cfg.dump())
    found = load_detector(source if form == "config" else weights, device="cpu")(read_image(image, "RGB"), 0.3)
    expected = DefaultPredictor(detector_cfg)(read_image(image, "BGR"))["instances"]
    expected = expected[expected.scores >= 0.3]
    assert len(expected) > 2
    boxes = expected.pred_boxes.tensor
    boxes[:, 2:] -= boxes[:, :2]
    torch.testing.assert_close(torch.tensor([d["bbox"] for d in found]), boxes)
    assert [d["score"] for d in found] == expected.scores.tolist()
    assert [d["category_id"] for d in found] == expected.pred_classes.tolist()


def test_each_box_gets_the_classes_of_its_crop(tiny_cfg, save_classifier, weights, image):
    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    pixels = read_image(image, "RGB")
    found = classify_boxes(load_detector(weights, device="cpu"), predictor, pixels, Ranking(predictor.info), 0.0, 0.2)
    assert len(found) == 6
    crops = [crop_box(pixels, box.detection["bbox"], 0.2, "x") for box in found]
    expected = list(predictor.predict(crops, channel_order="RGB"))
    assert [box.prediction for box in found] == expected
    entry = found[0].as_dict("a.jpg")
    assert entry["file_name"].endswith("/a.jpg") and entry["classes"] == expected[0].classes
    assert entry["bbox"] == found[0].detection["bbox"] and "above_threshold" not in entry


def test_names_of_categories_come_from_the_catalog(detector_cfg, weights, image, tmp_path):
    detector_cfg.DATASETS.TRAIN = ("coco_2017_train",)
    (tmp_path / "config.yaml").write_text(detector_cfg.dump())
    found = load_detector(str(tmp_path / "config.yaml"), device="cpu")(read_image(image, "RGB"), 0.0)
    assert [d["category"] for d in found] == [["person", "bicycle", "car"][d["category_id"]] for d in found]


def test_what_is_no_detector_is_refused(tiny_cfg, save_classifier, detector_cfg, weights, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(tiny_cfg.dump())
    with pytest.raises(UserError, match="is a classifier's config; the first argument is the detector"):
        load_detector(str(config), device="cpu")
    with pytest.raises(UserError, match="is no detector's checkpoint with its config; give the detector's config file"):
        load_detector(save_classifier(), device="cpu")
    detector_cfg.MODEL.WEIGHTS = ""
    config.write_text(detector_cfg.dump())
    with pytest.raises(UserError, match="names no weights, and a detector with random ones finds nothing"):
        load_detector(str(config), device="cpu")
    detector_cfg.MODEL.RETINANET.NUM_CLASSES = 5
    config.write_text(detector_cfg.dump())
    with pytest.raises(UserError, match="does not fit the model"):
        load_detector(str(config), weights, "cpu")
    with pytest.raises(UserError, match="which can run code"):
        load_detector(str(config), "model.pkl", "cpu")
