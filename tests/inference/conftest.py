"""A checkpoint to predict with, and images of every kind that the reader knows."""

import socket
import threading

import numpy as np
import pytest
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import build_info, write_checkpoint


def randomise(model):
    """Gives norms statistics and weights other than 0 and 1, so that images differ in their probabilities."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                getattr(module, name).data.uniform_(low, low + 1)
    model.head.linear.weight.data.normal_(std=1.0)
    return model


@pytest.fixture
def save_classifier(tiny_cfg, tmp_path):
    """``save_classifier(temperature=2.0)``: a checkpoint of ``tiny_cfg``, with other "imgcls" entries; its path."""

    def save(name: str = "model.pth", **entries) -> str:
        path = str(tmp_path / name)
        model = randomise(build_model(tiny_cfg))
        info = build_info(tiny_cfg, ["blue", "green", "red"]) | entries
        write_checkpoint(path, {"model": model.state_dict(), "imgcls": info})
        return path

    return save


@pytest.fixture
def mixed_images(tmp_path):
    """A folder of classes whose images differ in format, size, mode and EXIF orientation."""
    root = tmp_path / "mixed"
    rng = np.random.default_rng(3)

    def noise(height: int, width: int, *channels: int) -> np.ndarray:
        small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, *channels), dtype=np.uint8)
        return np.kron(small, np.ones((8, 8, *(1 for _ in channels)), np.uint8))[:height, :width]

    exif = Image.Exif()
    exif[0x0112] = 6
    for index, name in enumerate(("blue", "green", "red")):
        folder = root / name
        folder.mkdir(parents=True)
        Image.fromarray(noise(60 + index, 91, 3)).save(folder / "a.jpg", quality=85)
        Image.fromarray(noise(45, 70 + index, 3)).save(folder / "b.jpg", exif=exif)
        Image.fromarray(noise(33, 40, 3)).save(folder / "c.png")
        Image.fromarray(noise(50, 41, 4)).save(folder / "d.webp", lossless=True)
        Image.fromarray(noise(64, 48)).save(folder / "e.png")
        Image.fromarray(noise(40, 44).astype(np.uint16) * 200).save(folder / "f.tif")
    return root


@pytest.fixture
def start_server(require):
    """``start_server(service, max_bytes)``: the application of `imgcls serve` in a thread; its address."""
    require("gradio")
    import uvicorn

    from imgcls.inference.serve_page import add_page
    from imgcls.inference.serving import build_app

    started = []

    def start(service, max_bytes: int = 2**20) -> str:
        app = build_app(service, max_bytes)
        add_page(app, service, max_bytes)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
