"""The README and the pages of the manual name things that exist."""

import re
from pathlib import Path

import pytest

from imgcls.config import get_cfg

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = ("configs/X.yaml", "configs/COCO-Detection/X.yaml")


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request):
    return request.param


def test_the_readme_is_one_screen_and_a_half():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_file_exists(page):
    text = page.read_text()
    from_root = re.findall(r"\b(?:configs|scripts|tools|tests|imgcls|docs)/[\w/.-]+\.(?:yaml|sh|py|json|ipynb)\b", text)
    from_page = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text)
    missing = [path for path in from_root if path not in PLACEHOLDERS and not (ROOT / path).exists()]
    missing += [path for path in from_page if not (page.parent / path).exists()]
    assert missing == []


def test_every_config_of_the_model_zoo_exists(page):
    names = re.findall(r"(?<![\w/])((?:ImageNet|COCO-Detection|quickstart|transfer)/[\w-]+\.yaml)", page.read_text())
    assert [name for name in names if not (ROOT / "configs" / name).exists()] == []


def test_every_config_key_exists(page):
    cfg = get_cfg()
    unknown = []
    for key in set(
        re.findall(r"\b(?:MODEL|INPUT|SOLVER|DATASETS|DATALOADER|TEST)(?:\.[A-Z][A-Z_0-9]*)+", page.read_text())
    ):
        node = cfg
        for part in key.split("."):
            node = node.get(part, unknown) if isinstance(node, dict) else unknown
        if node is unknown and key != "SOLVER.BASE_LEARNING_RATE":
            unknown.append(key)
    assert unknown == []
