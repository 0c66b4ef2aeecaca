"""TensorBoard's event files, read back by TensorBoard itself."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

from imgcls.engine import PlainTrainer, Trainer, resolve_from_data
from imgcls.engine.scalars import RunStorage
from imgcls.engine.tensorboard import TensorBoardWriter


def read(folder: str) -> EventAccumulator:
    return EventAccumulator(folder, size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def hparams(events: EventAccumulator, tag: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
def test_images_are_those_of_the_first_batches_and_are_written_once(tiny_cfg, kind, train):
    tiny_cfg.INPUT.AUGMENTATION = "trivialaugment"
    resolve_from_data(tiny_cfg)
    train(tiny_cfg, kind)
    events = read(tiny_cfg.OUTPUT_DIR)
    tags = events.Tags()["images"]
    assert len(tags) == 16
    stream = iter(Trainer.build_train_loader(tiny_cfg))
    images = torch.cat([next(stream)["image"] for _ in range(4)])
    stream = iter(Trainer.build_train_loader(tiny_cfg))
    labels = torch.cat([next(stream)["label"] for _ in range(4)]).tolist()
    for number, tag in enumerate(sorted(tags)):
        assert tag == f"training images/{number:02d} {['blue', 'green', 'red'][labels[number]]}"
        (event,) = events.Images(tag)
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        assert event.step == 0
        assert np.array_equal(shown, images[number].flip(0).permute(1, 2, 0).numpy()), "INPUT.FORMAT is BGR"
    tiny_cfg.SOLVER.MAX_ITER = 4
    train(tiny_cfg, kind, resume=True)
    events = read(tiny_cfg.OUTPUT_DIR)
    assert len(events.Tags()["images"]) == 16 and all(len(events.Images(tag)) == 1 for tag in tags)


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
def test_hparams_with_the_final_metrics(tiny_cfg, kind, train):
    resolve_from_data(tiny_cfg)
    trainer = train(tiny_cfg, kind)
    events = read(tiny_cfg.OUTPUT_DIR)
    start = hparams(events, "_hparams_/session_start_info").session_start_info.hparams
    assert start["SOLVER.BASE_LR"].number_value == 0.05 and start["SOLVER.IMS_PER_BATCH"].number_value == 4
    assert start["MODEL.BACKBONE.NAME"].string_value == "build_mnetv1_backbone"
    metrics = {info.name.tag for info in hparams(events, "_hparams_/experiment").experiment.metric_infos}
    assert {"accuracy/top1", "accuracy/loss"} <= metrics <= set(events.Tags()["scalars"])
    results = trainer.results if kind is PlainTrainer else trainer._last_eval_results
    assert events.Scalars("accuracy/top1")[-1].value == pytest.approx(results["accuracy"]["top1"])
    assert hparams(events, "_hparams_/session_end_info").session_end_info.ByteSize() > 0


def test_a_run_that_fails_has_no_final_metrics(tiny_cfg, monkeypatch):
    resolve_from_data(tiny_cfg)
    tiny_cfg.TEST.EVAL_PERIOD = 1
    trainer = Trainer(tiny_cfg)
    step = trainer.run_step
    monkeypatch.setattr(trainer, "run_step", lambda: 1 / 0 if trainer.iter == 2 else step())
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert not [tag for tag in read(tiny_cfg.OUTPUT_DIR).Tags()["tensors"] if "hparams" in tag]


def curves(events: EventAccumulator) -> dict[str, list]:
    return {tag: events.Tensors(tag) for tag in events.Tags()["tensors"] if tag.startswith("precision and recall")}


@pytest.mark.parametrize("kind", [Trainer, PlainTrainer])
def test_curves_one_against_the_rest_after_each_evaluation(tiny_cfg, kind, train):
    tiny_cfg.TEST.SAVE_PROBABILITIES, tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.SOLVER.LOG_PERIOD = True, 1, 1
    tiny_cfg.SOLVER.EMA_DECAY = 0.5
    resolve_from_data(tiny_cfg)
    train(tiny_cfg, kind)
    found = curves(read(tiny_cfg.OUTPUT_DIR))
    names = ["all classes together", "blue", "green", "red"]
    assert set(found) == {f"precision and recall/{part}{name}" for part in ("", "ema/") for name in names}
    assert all([event.step for event in events] == [0, 1, 2] for events in found.values())
    probabilities = np.load(f"{tiny_cfg.OUTPUT_DIR}/inference/probabilities.npy")
    positives = np.array([1, 1, 0, 0, 0])  # of "blue"
    values = make_ndarray(found["precision and recall/blue"][-1].tensor_proto)
    for index in (0, 30, 42, 60):
        predicted = probabilities[:, 0] >= index / 126
        assert values[4, index] == pytest.approx(precision_score(positives, predicted, zero_division=0), abs=1e-6)
        assert values[5, index] == pytest.approx(recall_score(positives, predicted), abs=1e-6)


def test_no_curves_of_a_softmax_head_without_its_probabilities(tiny_cfg, train):
    resolve_from_data(tiny_cfg)
    train(tiny_cfg)
    assert curves(read(tiny_cfg.OUTPUT_DIR)) == {}


def test_many_classes_share_one_curve(tiny_cfg, tmp_path):
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "many")
    writer = TensorBoardWriter(tiny_cfg)
    with RunStorage(5) as storage:
        labels = torch.eye(21)
        storage.put_scores("", labels * 0.9, labels, [str(i) for i in range(21)])
        writer.write()
        writer.write()
        writer.close()
    found = curves(read(tiny_cfg.OUTPUT_DIR))
    assert {tag: len(events) for tag, events in found.items()} == {"precision and recall/all classes together": 1}


def test_an_image_that_cannot_be_read_is_left_to_the_training(tiny_cfg, tmp_path, caplog):
    resolve_from_data(tiny_cfg)
    trainer = Trainer(tiny_cfg)
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"damaged")
    for writer in trainer.build_writers():
        writer.close() if not isinstance(writer, TensorBoardWriter) else writer._writer.close()
    assert any("no training images in TensorBoard: " in message for message in caplog.messages)


def test_random_numbers_are_not_drawn(tiny_cfg):
    tiny_cfg.INPUT.AUGMENTATION = "randaugment"
    resolve_from_data(tiny_cfg)
    loader = Trainer.build_train_loader(tiny_cfg)
    states = []
    torch.manual_seed(3), np.random.seed(3)
    states = [(torch.get_rng_state().tolist(), str(np.random.get_state()))]
    samples = loader.preview(16)
    states.append((torch.get_rng_state().tolist(), str(np.random.get_state())))
    assert states[0] == states[1] and len(samples) == 16
    first = next(iter(loader))
    for sample, image in zip(samples, first["image"], strict=False):
        assert torch.equal(sample["image"], image), "the loader still starts with its first batch"
