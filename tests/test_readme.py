"""What README and manual name exists."""

import re
from pathlib import Path

import detectron2.config
import pytest

from imgcls.config import get_cfg

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def keys(node, prefix=""):
    for key, value in node.items():
        yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


def named_keys(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Z_0-9]*(?:\.[A-Z_0-9]+)+)`", text))


def test_every_key_of_ours_is_documented_and_every_key_in_the_readme_exists():
    documented = set().union(*(named_keys(page.read_text()) for page in PAGES))
    ours = set(keys(get_cfg()))
    assert ours - set(keys(detectron2.config.get_cfg())) <= documented
    assert {key for key in named_keys(PAGES[0].read_text()) if not any(k.startswith(key) for k in ours)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text()
    paths = [
        ROOT / path for path in re.findall(r"\b(?:configs|scripts|tools|tests)/[\w/.]+\.(?:yaml|sh|py|json)", text)
    ]
    paths += [page.parent / link for link in re.findall(r"\]\((?!http|#)([^)#\s]+)", text)]
    assert [str(path) for path in paths if path.name != "X.yaml" and not path.exists()] == []
