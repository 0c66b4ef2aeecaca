"""The rules of the design that hold for the whole package."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgcls"
FREE = {"config", "structures", "errors", "disk", "__version__"}
ALLOWED = {
    "errors": set(),
    "disk": {"errors"},
    "structures": set(),
    "config": {"errors"},
    "data": FREE,
    "modeling": FREE | {"checkpoint"},  # a backbone is checked against the weights that it will get
    "solver": FREE,
    "evaluation": FREE,
    "checkpoint": FREE,
    "engine": FREE | {"data", "modeling", "solver", "evaluation", "checkpoint"},
    "inference": FREE,
    "report": FREE | {"data", "modeling", "evaluation", "checkpoint"},
    "cli": FREE | {"data", "modeling", "solver", "evaluation", "checkpoint", "engine", "inference", "report"},
}


def imported_parts(path: Path) -> set[str]:
    """The parts of imgcls that a file imports, itself excluded."""
    inside = path.relative_to(PACKAGE).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("imgcls.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = list(inside[: len(inside) - node.level])
                names = [*base, *(node.module or "").split(".")]
                found |= {names[0]} if names[0] else {alias.name for alias in node.names}
            elif node.module == "imgcls":
                found |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("imgcls."):
                found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_flow_one_way(part):
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    for path in files:
        assert imported_parts(path) - {part} <= ALLOWED[part], path


def test_every_part_has_a_rule():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(ALLOWED)


def test_no_file_above_300_lines():
    assert [path for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 300] == []


def test_no_star_imports_and_no_cuda_calls():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "import *" not in text and ".cuda()" not in text, path


def test_import_changes_no_default_and_reads_no_data():
    """In a new process: detectron2's config is as it was, and no data folder is made or read."""
    code = """
import builtins, json, sys
from detectron2.config import get_cfg
before = get_cfg().dump()
opened = []
real = builtins.open
builtins.open = lambda *a, **k: (opened.append(str(a[0])), real(*a, **k))[1]
import imgcls
builtins.open = real
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
print(json.dumps({
    "same": before == get_cfg().dump(),
    "data": [name for name in opened if "datasets" in name and not name.endswith((".py", ".pyc"))],
    "names": [n for n in ("imagenet_train", "digits_test") if n in DatasetCatalog.list()],
    "registered": "build_mnetv1_backbone" in BACKBONE_REGISTRY and "ClsNet" in META_ARCH_REGISTRY,
}))
"""
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(out.stdout)
    assert told == {"same": True, "data": [], "names": ["imagenet_train", "digits_test"], "registered": True}


def test_without_detectron2_the_import_says_how_to_install_it():
    code = """
import importlib.util, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(name)
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "detectron2" else real(name, *a)
sys.meta_path.insert(0, Hide())
import imgcls
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode != 0
    assert "python tools/install_detectron2.py" in out.stderr.splitlines()[-1]
