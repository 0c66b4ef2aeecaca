"""The README says what is there."""

import re
from pathlib import Path

import detectron2.config

from imgcls.config import get_cfg

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def keys(node, prefix=""):
    for key, value in node.items():
        yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]


def test_every_key_of_ours_is_in_the_table_and_every_key_there_exists():
    table = set(
        re.findall(r"`([A-Z][A-Z_0-9]*(?:\.[A-Z_0-9]+)+)`", README.split("## Config keys")[1].split("## How")[0])
    )
    ours = set(keys(get_cfg()))
    assert ours - set(keys(detectron2.config.get_cfg())) <= table <= ours


def test_every_file_it_names_is_there():
    paths = re.findall(r"(?:configs|scripts|tools|tests)/[\w/.]+\.(?:yaml|sh|py|json)", README)
    paths += re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [path for path in paths if path != "configs/X.yaml" and not (ROOT / path).exists()] == []
