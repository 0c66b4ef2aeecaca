import pytest
import torch

from imgcls.data.image import read_image
from imgcls.inference import Predictor
from imgcls.inference.batches import RecordReader, predict_records
from imgcls.inference.image_sources import list_images
from imgcls.inference.prediction import Ranking


@pytest.fixture
def predictor(save_classifier):
    return Predictor.from_checkpoint(save_classifier(), "cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_what_the_predictor_gives(predictor, mixed_images, workers):
    records = list_images([str(mixed_images)])
    found = list(predict_records(predictor, records, Ranking(predictor.info), batch_size=5, workers=workers))
    expected = list(predictor.predict([r["file_name"] for r in records], batch_size=5))
    predictions = [prediction for batch in found for prediction in batch.predictions]
    assert [len(batch.predictions) for batch in found] == [5, 5, 5, 3]
    assert predictions == expected and len(expected) == 18
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(predictions, expected, strict=True))
    assert torch.equal(found[0].images[2], predictor.crop_image(predictions[2].source))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_keep_their_place(predictor, mixed_images, tmp_path, workers):
    (mixed_images / "blue" / "b.jpg").write_bytes(b"no image")
    for name in ("a.jpg", "b.jpg", "c.png"):  # a whole batch
        (mixed_images / "green" / name).write_bytes(b"")
    records = list_images([str(mixed_images)])
    batches = list(predict_records(predictor, records, Ranking(predictor.info), batch_size=3, workers=workers))
    predictions = [prediction for batch in batches for prediction in batch.predictions]
    assert [p.source for p in predictions] == [r["file_name"] for r in records]
    bad = [number for number, p in enumerate(predictions) if p.error]
    assert bad == [1, 6, 7, 8] and predictions[1].error.endswith("b.jpg: not an image that Pillow can read")
    assert "DATALOADER" not in predictions[6].error and len(batches[2].images) == 0
    good = next(predictor.predict([predictions[9].source, predictions[10].source, predictions[11].source], 3))
    assert predictions[9] == good


def test_it_starts_with_any_record(predictor, mixed_images):
    records = list_images([str(mixed_images)])
    batches = list(predict_records(predictor, records, Ranking(predictor.info), batch_size=4, first=16))
    assert [p.source for batch in batches for p in batch.predictions] == [r["file_name"] for r in records][16:]
    assert list(predict_records(predictor, records, Ranking(predictor.info), first=18)) == []


def test_a_box_is_predicted_as_the_image_that_it_cuts_out(predictor, mixed_images):
    path = str(mixed_images / "red" / "a.jpg")
    records = [{"file_name": path, "box": [10, 5, 40, 30]}, {"file_name": path, "box": [900, 5, 40, 30]}]
    (batch,) = predict_records(predictor, records, Ranking(predictor.info), margin=0.1)
    pixels = read_image(path, "RGB")[1:39, 6:54]
    assert batch.predictions[0].scores.tolist() == predictor(pixels, channel_order="RGB").scores.tolist()
    assert "is outside the image of 91 x 62 pixels" in batch.predictions[1].error
    assert batch.boxes == [[10, 5, 40, 30], [900, 5, 40, 30]]


def test_the_reader_is_built_from_plain_arguments(predictor, mixed_images):
    reader = RecordReader(list_images([str(mixed_images)]), predictor.crop, "BGR")
    sample = reader[17]
    assert len(reader) == 18 and sample["file_name"].endswith("red/f.tif") and sample["image"].shape == (3, 32, 32)
