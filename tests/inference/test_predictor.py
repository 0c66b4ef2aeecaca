import copy

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.cli.train import main as train
from imgcls.data.image import BadImageError, read_image
from imgcls.engine import Trainer, evaluate, resolve_from_data
from imgcls.errors import UserError
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator
from imgcls.inference import ClassifierInfo, Predictor


class FakeClassifier:
    """Its probabilities are the means of the three channels, so that the order of channels and images shows."""

    def __init__(self, image_format="RGB", thresholds=None):
        self.info = ClassifierInfo(
            ["first", "second", "third"], thresholds is not None, thresholds, 1.0, {"format": image_format}, 8, 1.0,
            "fake", "cpu",
        )  # fmt: skip
        self.batches = []

    def probabilities(self, images):
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 8, 8)
        self.batches.append(len(images))
        return images.float().mean((2, 3)) / 255


RED = np.zeros((10, 12, 3), np.uint8)
RED[:, :, 0] = 200


def run_evaluation(cfg, evaluator_class):
    """``--eval-only`` of a checkpoint: file name to all probabilities."""
    found = {}

    class Recording(evaluator_class):
        def process(self, inputs, outputs):
            for name, output in zip(inputs["file_name"], outputs, strict=True):
                row = torch.empty(len(self.classes))
                row[output["pred_classes"]] = output["scores"]
                found[name] = row
                assert "probs" not in output or torch.equal(output["probs"], row)
            super().process(inputs, outputs)

    class RecordingTrainer(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name, output_folder=None, classes=()):
            return Recording(classes)

    evaluate(RecordingTrainer, cfg, resolve_from_data(cfg))
    return found


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_every_probability_of_a_test_set_is_that_of_evaluation(
    tiny_cfg, save_classifier, mixed_images, image_format, channels_last
):
    tiny_cfg.INPUT.FORMAT, tiny_cfg.MODEL.CHANNELS_LAST, tiny_cfg.INPUT.CROP_PCT = image_format, channels_last, 0.8
    path = save_classifier()
    tiny_cfg.MODEL.WEIGHTS, tiny_cfg.DATASETS.TEST = path, (f"folder:{mixed_images}",)
    expected = run_evaluation(copy.deepcopy(tiny_cfg), ImageNetEvaluator)
    assert len(expected) == 18
    predictions = list(Predictor.from_checkpoint(path, "cpu").predict(expected, batch_size=4, topk=3))
    assert [p.source for p in predictions] == list(expected)
    for prediction in predictions:
        assert torch.equal(prediction.scores, expected[prediction.source]), prediction.source
        assert prediction.probabilities == sorted(prediction.scores.tolist(), reverse=True)
    assert len({tuple(p.scores.tolist()) for p in predictions}) == 18  # the network tells the images apart


def test_every_probability_of_a_multi_label_set_is_that_of_evaluation(
    tiny_cfg, save_classifier, mixed_images, tmp_path
):
    tiny_cfg.MODEL.CLSNET.HEAD = "sigmoid"
    path = save_classifier()
    rows = [f"{file},{file.parent.name}" for file in sorted(mixed_images.rglob("*.*"))]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file_name,labels", *rows]))
    tiny_cfg.MODEL.WEIGHTS, tiny_cfg.DATASETS.TRAIN = path, (f"csv:{table}",)
    tiny_cfg.DATASETS.TEST = tiny_cfg.DATASETS.TRAIN
    expected = run_evaluation(copy.deepcopy(tiny_cfg), MultiLabelEvaluator)
    for prediction in Predictor.from_checkpoint(path, "cpu").predict(expected, batch_size=4, topk=9):
        assert torch.equal(prediction.scores, expected[prediction.source])
        assert prediction.above_threshold == [
            name for name, p in zip(prediction.classes, prediction.probabilities, strict=True) if p > 0.5
        ]


def test_the_command_line_of_evaluation_agrees(tiny_cfg, save_classifier, mixed_images, tmp_path):
    """`imgcls train --eval-only` writes the best class and its score; the predictor's are the same."""
    path = save_classifier()
    config = tmp_path / "config.yaml"
    config.write_text(tiny_cfg.dump())
    train(["--eval-only", "--num-gpus", "0", "--config-file", str(config), "MODEL.WEIGHTS", path,
           "DATASETS.TEST", f"('folder:{mixed_images}',)"])  # fmt: skip
    lines = (tmp_path / "output" / "inference" / "predictions.csv").read_text().splitlines()[1:]
    files = [line.split(",")[1] for line in lines]
    predicted = Predictor.from_checkpoint(path, "cpu").predict(files, batch_size=4)
    assert [f"{p.classes[0]},{p.probabilities[0]:.6f}" for p in predicted] == [
        ",".join(line.split(",")[3:]) for line in lines
    ]


def test_a_file_an_array_and_a_tensor_are_the_same_image(mixed_images):
    path = str(mixed_images / "green" / "b.jpg")  # turned by EXIF
    rgb = read_image(path, "RGB")
    for image_format in ("RGB", "BGR"):
        predictor = Predictor(FakeClassifier(image_format))
        expected = predictor(path, topk=3)
        same = [
            predictor(rgb, 3, channel_order="RGB"),
            predictor(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), 3, channel_order="BGR"),
            predictor(torch.from_numpy(rgb).permute(2, 0, 1), 3, channel_order="RGB"),
        ]
        for prediction in same:
            assert torch.equal(prediction.scores, expected.scores) and prediction.source == 0
        assert expected.source == path


def test_a_pillow_image_is_turned_upright_and_its_file_gives_the_same(mixed_images):
    predictor = Predictor(FakeClassifier())
    for path in sorted(mixed_images.rglob("*.*")):
        with Image.open(path) as image:
            difference = predictor(image).scores - predictor(path).scores
        assert difference.abs().max() < (0.01 if path.suffix == ".jpg" else 1e-9), path


def test_the_channel_order_reaches_the_network():
    assert Predictor(FakeClassifier("RGB"))(RED, channel_order="RGB").classes[0] == "first"
    assert Predictor(FakeClassifier("BGR"))(RED, channel_order="RGB").classes[0] == "third"
    assert Predictor(FakeClassifier("RGB"))(RED, channel_order="BGR").classes[0] == "third"
    assert Predictor(FakeClassifier("BGR"))(Image.fromarray(RED)).classes[0] == "third"


def test_images_are_taken_one_batch_at_a_time():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield RED

    classifier = FakeClassifier()
    predictions = Predictor(classifier).predict(endless(), batch_size=3, topk=1, channel_order="RGB")
    assert taken == []
    assert [next(predictions).source for _ in range(4)] == [0, 1, 2, 3]
    assert len(taken) == 6 and classifier.batches == [3, 3]


def test_the_classes_above_their_own_thresholds_are_listed_best_first():
    image = np.empty((8, 8, 3), np.uint8)
    image[:] = (102, 204, 153)  # 0.4, 0.8, 0.6
    prediction = Predictor(FakeClassifier(thresholds=[0.3, 0.9, 0.5]))(image, topk=1, channel_order="RGB")
    assert prediction.classes == ["second"] and prediction.above_threshold == ["third", "first"]
    assert Predictor(FakeClassifier())(image, channel_order="RGB").above_threshold is None
    assert Predictor(FakeClassifier(thresholds=[0.4, 0.8, 0.6]))(image, channel_order="RGB").above_threshold == []


def test_a_broken_image_in_a_batch(tmp_path):
    names = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        path.write_bytes(b"no image") if number == 1 else Image.fromarray(RED).save(path)
        names.append(str(path))
    predictor = Predictor(FakeClassifier())
    predictions = list(predictor.predict(names, batch_size=3, errors="return"))
    assert [p.source for p in predictions] == names
    assert predictions[1].error == f"{names[1]}: not an image that Pillow can read" and predictions[1].classes == []
    assert [p.classes[:1] for p in predictions if not p.error] == [["first"]] * 4
    found = []
    with pytest.raises(BadImageError, match=r"1\.png: not an image .*; replace it, or give errors=\"return\"$"):
        found.extend(p.source for p in predictor.predict(names, batch_size=3))
    assert predictor.predict([], batch_size=3) is not None and list(predictor.predict([])) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RED.astype(np.float32), "image 0 is an array of float32; allowed: uint8, 0-255; multiply by 255"),
        (RED.astype(np.uint16), "image 0 is an array of uint16; allowed: uint8, 0-255; scale it"),
        (RED[:, :, 0], r"array of shape \(10, 12\); allowed: \(H, W, 3\)"),
        (np.zeros((10, 12, 4), np.uint8), r"array of shape \(10, 12, 4\)"),
        (np.zeros((0, 12, 3), np.uint8), r"array of shape \(0, 12, 3\), which has no pixels"),
        (torch.zeros(10, 12, 3, dtype=torch.uint8), r"tensor of shape \(10, 12, 3\); allowed: \(3, H, W\)"),
        (torch.zeros(3, 10, 12), "tensor of float32; allowed: uint8"),
        (b"bytes", "image 0 is a bytes; allowed: a path, a PIL.Image, a uint8 array"),
        (None, "image 0 is a NoneType; allowed"),
    ],
)
def test_other_inputs_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        next(Predictor(FakeClassifier()).predict([image], channel_order="RGB"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "cat.jpg"}, r"call predictor\(image\)"),
        ({"images": RED}, r"call predictor\(image\)"),
        ({"batch_size": 0}, "batch_size is 0; allowed: a whole number from 1"),
        ({"topk": 0}, "topk is 0; allowed"),
        ({"errors": "ignore"}, "errors is 'ignore'; allowed"),
        ({"channel_order": "GBR"}, "channel_order is 'GBR'; allowed: 'RGB' or 'BGR'"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments, message):
    with pytest.raises(UserError, match=message):
        Predictor(FakeClassifier()).predict(**{"images": [], **arguments})


def test_an_array_needs_its_channel_order():
    with pytest.raises(UserError, match="image 0: an array or tensor does not say its channel order; give"):
        Predictor(FakeClassifier())(RED)


def test_probabilities_that_are_not_numbers_are_refused():
    classifier = FakeClassifier()
    classifier.probabilities = lambda images: torch.full((len(images), 3), float("nan"))
    with pytest.raises(UserError, match="0: its probabilities are not finite numbers"):
        Predictor(classifier)(RED, channel_order="RGB")


def test_default_predictor_of_detectron2_is_refused_in_one_line(tiny_cfg, save_classifier, mixed_images):
    """It would resize to 800 pixels, and hardly a class would be that of evaluation."""
    from detectron2.engine import DefaultPredictor

    tiny_cfg.MODEL.WEIGHTS = save_classifier()
    image = read_image(str(mixed_images / "red" / "a.jpg"), "BGR")
    with pytest.raises(UserError, match=r"detectron2's DefaultPredictor resizes .* use imgcls\.Predictor") as error:
        DefaultPredictor(tiny_cfg)(image)
    assert "\n" not in str(error.value)
    model = DefaultPredictor(tiny_cfg).model
    assert len(model([{"image": torch.zeros(3, 32, 32)}])) == 1  # detectron2's convention itself is not refused
    assert len(model([{"image": torch.zeros(3, 32, 32), "height": 9, "width": 9, "file_name": "x"}])) == 1
