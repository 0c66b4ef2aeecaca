"""The generated parts of the manual are up to date and complete."""

import runpy
from pathlib import Path

import detectron2.config
import pytest

from imgcls.config import get_cfg

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def keys(node, prefix=""):
    for key, value in node.items():
        yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


def test_the_pages_are_what_the_script_writes(generate):
    pages = generate["build_pages"]()
    outdated = [path.name for path, text in pages.items() if not path.is_file() or path.read_text() != text]
    outdated += [path.name for path in (ROOT / "docs" / "api").glob("imgcls*.md") if path not in pages]
    assert outdated == [], "run `python docs/generate.py`"


def test_every_key_of_ours_has_a_comment(generate):
    rows = generate["read_keys"]()
    assert {key for key, _, _ in rows} == set(keys(get_cfg())) - set(keys(detectron2.config.get_cfg()))
    assert [key for key, _, comment in rows if not comment] == []
