"""The page of `imgcls serve`: what it opens of gradio, and how it works in a browser."""

import io
import re
import socket
import threading

import pytest
from PIL import Image

from imgcls.inference import ClassifierInfo, Predictor
from imgcls.inference.serving import PredictionService, build_app

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


class MeanClassifier:
    """Its probabilities are the means of the three channels."""

    def __init__(self, classes=("first", "second", "third"), thresholds=None):
        self.info = ClassifierInfo(
            list(classes), thresholds is not None, thresholds, 1.0, {"format": "RGB"}, 8, 1.0,
            f"runs/{HOSTILE.replace('/', '')}.pth", "cpu",
        )  # fmt: skip

    def probabilities(self, images):
        return images.float().mean((2, 3)) / 255


def encode(*colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 10), colour).save(file, "PNG")
    return file.getvalue()


def make_service(**arguments) -> PredictionService:
    return PredictionService(Predictor(MeanClassifier(**arguments)))


def list_routes(router):
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else list_routes(inner)


def test_all_routes_of_gradio_are_closed_but_those_that_the_page_loads(require, start_server):
    require("gradio")
    httpx = require("httpx")
    from imgcls.inference.serve_page import add_page

    service = make_service()
    app = build_app(service, 2**20)
    add_page(app, service, 2**20)
    (mount,) = [route for route in app.routes if type(route).__name__ == "Mount"]
    routes = {(method, route.path) for route in list_routes(mount.app) for method in getattr(route, "methods", ())}
    assert {("POST", "/gradio_api/upload"), ("GET", "/gradio_api/file={path_or_url:path}")} <= routes
    address, opened = start_server(service), set()
    for method, path in routes:
        answer = httpx.request(method, address + re.sub(r"\{.*?\}", "x", path))
        if answer.status_code != 404 or (method != "HEAD" and answer.json() != {"error": "not found"}):
            opened.add((method, path))
    assert opened == {
        ("GET", "/"), ("HEAD", "/"), ("GET", "/theme.css"), ("GET", "/favicon.ico"),
        ("GET", "/static/{path:path}"), ("GET", "/assets/{path:path}"),
    }  # fmt: skip


def test_no_file_of_the_machine_is_given(require, start_server, tmp_path):
    """Paths are sent as they are; httpx would tidy them up."""
    address = start_server(make_service())
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    up = "../" * 20
    for path in (
        f"/gradio_api/file={secret}", f"/file={secret}", f"/static/{up}{secret}", f"/assets/{up}{secret}",
        f"/static/{up.replace('/', '%2f')}{str(secret).replace('/', '%2f')}", f"/assets/{secret}", f"/{up}{secret}",
        f"/?deep_link={up}{tmp_path}", f"/static/../gradio_api/file={secret}",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 ") and b"\r\n\r\nsecret" not in answer, path


def test_gradio_gets_no_query(require, start_server):
    httpx = require("httpx")
    address = start_server(make_service())
    assert httpx.get(f"{address}/?deep_link=x&page=y").text == httpx.get(f"{address}/").text


def test_nobody_is_asked_while_the_server_starts(require, start_server, monkeypatch):
    """gradio's telemetry and version check run in threads that start with its first block."""
    gradio = require("gradio")
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    asked = []

    def look_up(host, *rest, **more):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    def wait_for_threads(before):
        for thread in set(threading.enumerate()) - before:
            if not any(word in thread.name for word in ("AnyIO", "serve")):
                thread.join(2)

    before = set(threading.enumerate())
    with gradio.Blocks():
        pass
    wait_for_threads(before)
    assert asked, "by default gradio asks, so that this test can see it"
    asked.clear()
    from imgcls.inference.serve_page import add_page

    before = set(threading.enumerate())
    service = make_service()
    add_page(build_app(service, 2**20), service, 2**20)
    wait_for_threads(before)
    assert asked == []


class Window:
    """The page in a browser, with what it logs and every address that it asks for."""

    def __init__(self, chromium, address: str):
        self.problems: list[str] = []
        self.page = chromium.new_page()
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note(request.url, f"{address}/"))
        self.page.goto(address)
        self.page.locator("#imgcls .drop").wait_for(timeout=30000)

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, f"blob:{address}", "data:")):
            self.problems.append(f"request: {url}")

    def choose(self, *files: tuple[str, bytes]) -> None:
        before = self.page.locator("figure").count()
        payload = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
        self.page.locator("#imgcls input[type=file]").set_input_files(payload)
        self.page.locator("figure").nth(before + len(files) - 1).wait_for()

    def rows(self, number: int = 0) -> list[tuple[str, str, bool]]:
        """Class, probability and whether it is marked, of the rows of an image; 0 is the newest."""
        rows = self.page.locator("figure").nth(number).locator("li").all()
        return [
            (row.locator("bdi").inner_text(), row.locator("output").inner_text(), row.get_attribute("class") == "above")
            for row in rows
        ]


@pytest.fixture
def open_page(chromium, start_server):
    """``open_page(service, max_bytes)``: the page of a new server."""
    return lambda service, max_bytes=2**20: Window(chromium, start_server(service, max_bytes))


@pytest.mark.slow
def test_images_are_shown_with_their_classes_as_text(open_page):
    window = open_page(make_service(classes=[HOSTILE, "\u732b", "قطة"]), 5000)
    page = window.page
    assert page.inner_text("#imgcls h1") == f"{HOSTILE.replace('/', '')}.pth: 3 classes"
    assert page.inner_text("#imgcls .note").startswith("Without heat maps: ")
    assert page.locator("input[type=range]").count() == 0  # a softmax model
    window.choose((f"{HOSTILE.replace('/', '')}.png", encode(204, 102, 51)), ("b.png", encode(0, 0, 255)))
    assert window.rows(1) == [(HOSTILE, "0.800", True), ("\u732b", "0.400", False), ("قطة", "0.200", False)]
    assert window.rows(0)[0] == ("قطة", "1.000", True)
    assert page.locator("figcaption").nth(1).inner_text() == f"{HOSTILE.replace('/', '')}.png"
    bar = page.locator("figure").nth(1).locator(".bar").first
    share = bar.evaluate("(b) => b.firstChild.clientWidth / b.clientWidth")
    assert share == pytest.approx(0.8, abs=0.02)
    assert page.evaluate("[...document.querySelectorAll('figure img')].every((i) => i.naturalWidth === 10)")
    assert page.evaluate("window.hacked") is None and page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth"
    )
    assert window.problems == []

    window.choose(("broken.png", b"no image"), ("large.png", bytes(6000)))
    errors = page.locator("figure .error").all_inner_texts()
    assert errors == [
        "the file is too large; allowed: up to 0.00477 MiB (--max-megabytes)",
        "broken.png: not an image that Pillow can read",
    ]
    window.choose(("b.png", encode(0, 0, 255)))  # again the same name
    assert window.rows()[0] == ("قطة", "1.000", True)
    # The browser itself logs the status of the unreadable image.
    assert [line for line in window.problems if "status of 422" not in line] == []


@pytest.mark.slow
def test_images_are_dropped(open_page):
    window = open_page(make_service())
    page = window.page
    data = page.evaluate_handle(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            return data;
        }""",
        list(encode(0, 255, 0)),
    )
    page.dispatch_event("#imgcls .drop", "dragover", {"dataTransfer": data})
    assert "over" in page.get_attribute("#imgcls .drop", "class")
    page.dispatch_event("#imgcls .drop", "drop", {"dataTransfer": data})
    page.locator("figure li").first.wait_for()
    assert window.rows()[0] == ("second", "1.000", True) and window.problems == []
    assert "over" not in page.get_attribute("#imgcls .drop", "class")


@pytest.mark.slow
def test_the_slider_replaces_the_thresholds_of_a_multi_label_model(open_page):
    window = open_page(make_service(classes=[HOSTILE, "b", "c"], thresholds=[0.9, 0.3, 0.1]))
    page = window.page
    window.choose(("a.png", encode(204, 102, 51)))

    def marked() -> list[bool]:
        return [row[2] for row in window.rows()]

    assert marked() == [False, True, True]
    lines = page.locator("figure .bar i").evaluate_all("(all) => all.map((line) => line.style.left)")
    assert [float(line.rstrip("%")) for line in lines] == pytest.approx([90, 30, 10], abs=0.01)
    slider = page.locator("input[type=range]")
    slider.fill("0.7")
    page.locator("li.above").nth(0).wait_for()
    page.wait_for_function("document.querySelectorAll('li.above').length === 1")
    assert marked() == [True, False, False]
    own = page.get_by_label("thresholds of the model")
    page.wait_for_function("!document.querySelector('input[type=checkbox]').checked")
    window.choose(("b.png", encode(204, 204, 51)))  # also for new images
    assert marked() == [True, True, False]
    own.check()
    page.wait_for_function("document.querySelectorAll('li.above').length === 4")
    assert marked() == [False, True, True]
    assert window.problems == [] and page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_the_heat_map_of_a_checkpoint(open_page, save_classifier, mixed_images, require):
    require("captum")
    predictor = Predictor.from_checkpoint(save_classifier(), "cpu")
    window = open_page(PredictionService(predictor))
    path = mixed_images / "red" / "f.tif"  # browsers cannot show it; what the network saw can be shown
    expected = predictor(str(path))
    window.choose(("f.tif", path.read_bytes()))
    window.page.wait_for_function("document.querySelectorAll('figure img').length === 1")
    image = window.page.locator("figure img")
    assert image.get_attribute("alt") == f"what speaks for {expected.classes[0]}"
    assert image.evaluate("(i) => i.decode().then(() => i.naturalWidth)") == 32
    assert window.page.inner_text("#imgcls .note") == "" and window.problems == []
