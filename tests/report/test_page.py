"""The page in a browser."""

import json
from pathlib import Path

import pytest

from imgcls.engine import Trainer, resolve_from_data
from imgcls.report import write_comparison, write_report

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


class Browser:
    """Opens pages, and keeps what they log and what they ask the network for."""

    def __init__(self, chromium):
        self.chromium = chromium
        self.problems: list[str] = []

    def open(self, path: Path, scheme: str = "light"):
        page = self.chromium.new_page(color_scheme=scheme)
        page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", lambda request: self._note(request.url))
        page.goto(path.absolute().as_uri())
        return page

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.problems.append(f"request: {url}")


@pytest.fixture
def browser(chromium):
    return Browser(chromium)


def column(page, table: str, number: int) -> list[str]:
    return page.locator(f"{table} tbody tr td:nth-child({number})").all_inner_texts()


@pytest.mark.slow
def test_numbers_and_sorting_without_errors_or_requests(browser, make_run, tmp_path):
    classes = [HOSTILE, "\u732b", "قطة", "dog"]
    make_run(tmp_path / "run", classes, num_images=60)
    page = browser.open(write_report(tmp_path / "run").page, "dark")
    content = json.loads((tmp_path / "run/inference/accuracy.json").read_text())
    assert page.inner_text('[data-metric="accuracy/top1"]') == f"{content['metrics']['top1']:.2f} %"
    table = "#set0-classes table"
    shown = dict(zip(column(page, table, 1), column(page, table, 3), strict=True))
    assert shown == {row["class"]: f"{row['accuracy']:.2f} %" for row in content["per_class"]}

    accuracies = sorted((row["accuracy"] for row in content["per_class"]), reverse=True)
    button = page.locator(f"{table} th:nth-child(3) button")
    button.click()
    assert column(page, table, 3) == [f"{value:.2f} %" for value in accuracies]
    button.focus()
    page.keyboard.press("Enter")
    assert column(page, table, 3) == [f"{value:.2f} %" for value in reversed(accuracies)]
    assert page.locator(f"{table} th:nth-child(3)").get_attribute("aria-sort") == "ascending"
    page.locator(f"{table} th:nth-child(1) button").click()
    assert set(column(page, table, 1)) == set(classes)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.problems == []


@pytest.mark.slow
def test_a_matrix_of_many_classes_is_drawn_and_read(browser, make_run, tmp_path):
    classes = [HOSTILE, *(f"class {i}" for i in range(1, 120))]
    make_run(tmp_path / "run", classes, num_images=400)
    page = browser.open(write_report(tmp_path / "run").page)
    canvas = page.locator(".matrix canvas")
    canvas.scroll_into_view_if_needed()
    pixels = canvas.evaluate("(c) => c.toDataURL()")
    page.get_by_placeholder("go to a class").fill("class 60")
    page.keyboard.press("Enter")
    assert canvas.evaluate("(c) => c.toDataURL()") != pixels
    side = canvas.evaluate("(c) => c.clientWidth")
    canvas.hover(position={"x": 130 + (side - 130) / 2, "y": 130 + (side - 130) / 2})
    assert page.inner_text(".matrix .readout").startswith("true class 60, predicted class 60: ")
    page.get_by_role("button", name="whole matrix").click()
    assert canvas.evaluate("(c) => c.toDataURL()") == pixels
    field = page.locator("#set0-classes .filter")
    field.fill("class 11")
    assert page.locator("#set0-classes tbody tr:visible").count() == 11
    assert browser.problems == [] and page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_curves_of_the_chosen_class_and_a_comparison(browser, make_run, tmp_path):
    for i, name in enumerate("ab"):
        make_run(tmp_path / name, [HOSTILE, "b", "c"], num_images=50, multi_label=True, seed=i)
    page = browser.open(write_report(tmp_path / "a").page)
    line = page.locator(".pick svg polyline").first
    before = line.get_attribute("points")
    assert "F1 is largest" in page.inner_text(".pick .readout")
    page.select_option(".pick select", label="c")
    assert line.get_attribute("points") != before and "NaN" not in line.get_attribute("points")
    page = browser.open(write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out"))
    for name in "ab":
        content = json.loads((tmp_path / name / "inference/multilabel.json").read_text())
        shown = page.inner_text(f'[data-metric="{name}/multilabel/mAP"]')
        assert shown == f"{content['metrics']['mAP']:.2f} %"
    assert browser.problems == [] and page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_grad_cam_is_switched_on_and_off_for_all_cards(browser, tiny_cfg, tmp_path, require):
    require("captum")
    tiny_cfg.TEST.SAVE_PROBABILITIES = True
    resolve_from_data(tiny_cfg)
    Trainer(tiny_cfg).train()
    page = browser.open(write_report(tmp_path / "output").page)
    cards = page.locator("#set0-doubtful .card")
    assert cards.count() == 5

    def visible() -> list[set[str]]:
        images = "(card) => [...card.querySelectorAll('img')].filter((i) => i.offsetWidth > 0).map((i) => i.className)"
        return [set(cards.nth(i).evaluate(images)) for i in range(cards.count())]

    assert visible() == [{""}] * 5
    page.locator("#set0-doubtful").get_by_label("Grad-CAM of the best class").check()
    assert visible() == [{"view1"}] * 5
    best = cards.first.locator("figcaption > span").first.inner_text().split()[1]
    assert f"Grad-CAM of {best}" in " ".join(cards.first.inner_text().split())
    page.locator("#set0-doubtful").get_by_label("Grad-CAM of the best class").press("ArrowRight")
    assert visible() == [{"view2"}] * 5
    page.locator("#set0-doubtful").get_by_label("image", exact=True).check()
    assert visible() == [{""}] * 5
    assert page.locator("#set0-mistakes img.view1:visible").count() == 0
    assert browser.problems == []
