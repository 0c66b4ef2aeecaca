"""The JSON API, asked over HTTP."""

import base64
import io
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.inference import ClassifierInfo, Predictor
from imgcls.inference.serving import PredictionService


class MeanClassifier:
    """Its probabilities are the means of the three channels."""

    def __init__(self, thresholds=None, scale=1.0):
        self.scale = scale
        self.info = ClassifierInfo(
            ["first", "second", "third"], thresholds is not None, thresholds, 1.0, {"format": "RGB"}, 8, 1.0,
            "fake.pth", "cpu",
        )  # fmt: skip

    def probabilities(self, images):
        return images.float().mean((2, 3)) / 255 * self.scale


def encode(*colour: int, size=(10, 10), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


@pytest.fixture
def ask(start_server):
    """``ask(classifier)(file, topk="2")``: the status and JSON of a request to a server of the classifier."""
    import httpx

    def start(classifier, max_bytes: int = 2**20):
        address = start_server(PredictionService(Predictor(classifier)), max_bytes)

        def post(content: bytes | Path, name: str = "", **fields: str):
            data = content.read_bytes() if isinstance(content, Path) else content
            files = {"image": (name or getattr(content, "name", "a.png"), data)}
            answer = httpx.post(f"{address}/predict", files=files, data=fields, timeout=30)
            return answer.status_code, answer.json()

        post.address = address
        return post

    return start


def test_answers_are_those_of_the_predictor_for_every_kind_of_image(ask, save_classifier, mixed_images):
    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    post = ask(predictor.classifier)
    seen = set()
    for path in sorted(mixed_images.rglob("*.*")):
        expected = predictor(str(path), topk=3)
        assert post(path, topk="3") == (200, {
            "file_name": path.name, "classes": expected.classes, "probabilities": expected.probabilities,
            "thresholds": None, "above_threshold": None,
        })  # fmt: skip
        seen.add(tuple(expected.probabilities))
    assert len(seen) == 18


@pytest.mark.parametrize("with_cam", [False, True])
def test_eight_clients_with_200_images_get_the_right_answer_each(
    start_server, save_classifier, tmp_path, with_cam, require
):
    if with_cam:
        require("captum")
    import httpx

    rng = np.random.default_rng(4)
    paths = [tmp_path / f"{number}.png" for number in range(200)]
    for path in paths:
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((50, 40), Image.Resampling.NEAREST).save(path)
    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    service = PredictionService(predictor)
    expected = [predictor(str(path), topk=3) for path in paths]
    assert len({tuple(p.probabilities) for p in expected}) == 200
    heat_maps = {}
    if with_cam:
        from imgcls.inference.prediction import Ranking

        for path in paths[::5]:
            with path.open("rb") as file:
                heat_maps[path.name] = service.answer(file, path.name, Ranking(service.info), True)["heat_map"]
        assert len(set(heat_maps.values())) == 40
    address = start_server(service)

    def client(number: int) -> list[dict]:
        """Sends every eighth image, on one connection."""
        with httpx.Client(base_url=address, timeout=60) as session:
            return [
                session.post(
                    "/predict",
                    files={"image": (path.name, path.read_bytes())},
                    data={"cam": "1" if path.name in heat_maps else "0"},
                ).json()
                for path in paths[number::8]
            ]

    with ThreadPoolExecutor(8) as pool:
        answers = {row["file_name"]: row for rows in pool.map(client, range(8)) for row in rows}
    assert len(answers) == 200
    for path, prediction in zip(paths, expected, strict=True):
        answer = answers[path.name]
        assert (answer["classes"], answer["probabilities"]) == (prediction.classes, prediction.probabilities), path
        assert answer.get("heat_map") == heat_maps.get(path.name)


def test_thresholds_of_the_model_and_of_the_request(ask):
    post = ask(MeanClassifier([0.1, 0.5, 0.9]))
    status, answer = post(encode(51, 102, 204), topk="2")
    assert status == 200 and answer["classes"] == ["third", "second"]
    assert answer["probabilities"] == pytest.approx([0.8, 0.4]) and answer["thresholds"] == pytest.approx([0.9, 0.5])
    assert answer["above_threshold"] == ["first"]  # also those that are not among the best
    _, answer = post(encode(51, 102, 204), threshold="0.3")
    assert answer["thresholds"] == pytest.approx([0.3] * 3) and answer["above_threshold"] == ["third", "second"]


def test_a_softmax_model_has_thresholds_only_if_they_are_asked_for(ask):
    post = ask(MeanClassifier())
    _, answer = post(encode(255, 0, 0))
    assert answer["thresholds"] is None and answer["above_threshold"] is None
    assert post(encode(255, 0, 0), threshold="0.5")[1]["above_threshold"] == ["first"]


def test_the_heat_map_is_the_cropped_image_below_its_grad_cam(ask, save_classifier, mixed_images, require):
    require("captum")
    from imgcls.inference.cam import GradCam, overlay

    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    path = mixed_images / "red" / "a.jpg"
    status, answer = ask(predictor.classifier)(path, cam="1")
    crop = predictor.crop_image(str(path))
    heat = GradCam(predictor.classifier)(crop[None], [predictor.info.classes.index(answer["classes"][0])])[0]
    expected = overlay(crop.permute(1, 2, 0).numpy()[:, :, ::-1], heat)  # the checkpoint's order is BGR
    encoded = answer["heat_map"].removeprefix("data:image/jpeg;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), np.int16)
    assert status == 200 and shown.shape == expected.shape == (32, 32, 3)
    assert np.abs(shown - expected).mean() < 8 < np.abs(shown[:, :, ::-1] - expected).mean()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"topk": "0"}, "topk is 0; allowed: a whole number from 1"),
        ({"topk": "x"}, "topk is 'x'; allowed: a whole number from 1"),
        ({"threshold": "2"}, "threshold is 2.0; allowed: a probability, from 0 to 1"),
        ({"threshold": "nan"}, "threshold is nan; allowed"),
        ({"threshold": "high"}, "threshold is 'high'; allowed"),
        ({"cam": "yes"}, "cam is 'yes'; allowed: 0 or 1"),
        ({"cam": "1"}, "fake.pth: Grad-CAM needs"),
        ({"treshold": "0.5"}, "the form has the unknown field 'treshold'; allowed: image, topk, threshold, cam"),
    ],
)
def test_a_wrong_field_is_status_400(ask, fields, message):
    status, answer = ask(MeanClassifier())(encode(1, 2, 3), **fields)
    assert status == 400 and list(answer) == ["error"] and answer["error"].startswith(message)


def test_a_request_without_one_file_is_status_400(ask):
    import httpx

    address = f"{ask(MeanClassifier()).address}/predict"
    two = [("image", ("a.png", encode(1, 2, 3))), ("image", ("b.png", encode(1, 2, 3)))]
    for request in ({}, {"content": encode(1, 2, 3)}, {"data": {"image": "text"}}, {"files": two},
                    {"files": {"photo": ("a.png", encode(1, 2, 3))}}):  # fmt: skip
        answer = httpx.post(address, **request)
        assert answer.status_code == 400 and answer.json()["error"], request


def test_unreadable_images_are_status_422_with_the_reason_and_the_server_goes_on(ask, tmp_path):
    post = ask(MeanClassifier())
    good = encode(200, 0, 0, size=(40, 40), kind="JPEG")
    for content, message in (
        (b"no image", "a.png: not an image that Pillow can read"),
        (b"", "a.png: "),
        (good[: len(good) // 2], "a.png: damaged or truncated ("),
        (encode(1, 2, 3, kind="EPS"), "a.png: is PostScript"),
    ):
        status, answer = post(content)
        assert status == 422 and answer["error"].startswith(message) and "DATALOADER" not in answer["error"], answer
    assert post(good)[1]["classes"][0] == "first"


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(ask, monkeypatch):
    import cv2

    def decode(*_):
        raise AssertionError("decoded")

    file = io.BytesIO()
    Image.new("L", (16000, 12000)).save(file, "PNG", compress_level=1)
    monkeypatch.setattr(cv2, "imdecode", decode)
    status, answer = ask(MeanClassifier())(file.getvalue())
    assert status == 422 and answer["error"].startswith("a.png: has too many pixels (Image size (192000000 pixels)")


@pytest.mark.parametrize("chunked", [False, True])
def test_files_above_the_limit_are_status_413(ask, chunked):
    import httpx

    post = ask(MeanClassifier(), 200_000)
    exact = encode(255, 0, 0)
    exact += bytes(200_000 - len(exact))
    if not chunked:
        assert post(exact)[0] == 200
        assert post(exact + b"0")[0] == 413
    for size in (300_000, 50_000_000):
        body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + bytes(size)
        parts = (body[start : start + 65536] for start in range(0, len(body), 65536))
        answer = httpx.post(
            f"{post.address}/predict",
            content=parts if chunked else body,
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 413
        assert answer.json() == {"error": "the file is too large; allowed: up to 0.191 MiB (--max-megabytes)"}


def test_nothing_of_an_upload_stays_on_the_disk(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    post = ask(MeanClassifier(), 2**23)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 2**21  # small ones stay in memory anyway
    assert post(file.getvalue())[0] == 200 and post(file.getvalue()[: 2**21])[0] == 422 and post(bytes(2**24))[0] == 413
    assert list(tmp_path.rglob("*")) == []


def test_damaged_weights_are_status_500(ask):
    status, answer = ask(MeanClassifier(scale=float("nan")))(encode(1, 2, 3), name="x.png")
    assert status == 500 and answer["error"].startswith("x.png: its probabilities are not finite numbers")


def test_names_of_files_come_without_folders(ask):
    post = ask(MeanClassifier())
    for name in ("C:\\photos\\cat.png", "../photos/cat.png", "cat.png"):
        assert post(encode(1, 2, 3), name)[1]["file_name"] == "cat.png"


def test_a_client_that_leaves_in_the_middle_does_no_harm(ask, caplog):
    post = ask(MeanClassifier())
    port = int(post.address.rpartition(":")[2])
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head + b"Content-Length: 5000\r\n\r\n--b\r\n")
    time.sleep(0.2)
    assert post(encode(255, 0, 0))[0] == 200
    assert "Traceback" not in caplog.text and caplog.records == []


def test_without_captum_images_are_predicted_and_the_reason_is_kept(ask, save_classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    classifier = Predictor.from_checkpoint(save_classifier(), "cpu").classifier
    assert PredictionService(Predictor(classifier)).without_cam == 'Grad-CAM needs captum: pip install -e ".[cam]"'
    post = ask(classifier)
    assert post(encode(1, 2, 3))[0] == 200
    assert post(encode(1, 2, 3), cam="1") == (400, {"error": 'Grad-CAM needs captum: pip install -e ".[cam]"'})


def test_the_mode_of_a_caller_does_not_matter(save_classifier, mixed_images):
    from imgcls.inference.prediction import Ranking

    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    service = PredictionService(predictor)
    path = mixed_images / "red" / "c.png"
    with torch.inference_mode(), path.open("rb") as file:
        answer = service.answer(file, "c.png", Ranking(service.info))
    assert answer["probabilities"] == predictor(str(path)).probabilities
