"""The rules of the design that hold for the whole package."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgcls"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

BASE = {"config", "structures", "errors", "disk", "__version__"}
PARTS = BASE | {"data", "modeling", "solver", "evaluation", "checkpoint"}
# For each module or folder of the package, the others that it may import.
ALLOWED = {
    "errors": set(),
    "disk": {"errors"},
    "structures": set(),
    "config": {"errors"},
    "model_zoo": {"errors", "config"},
    "data": BASE,
    "modeling": BASE | {"checkpoint"},  # backbones check their weights before detectron2 loads them
    "solver": BASE,
    "evaluation": BASE,
    "checkpoint": BASE,
    "inference": PARTS,
    "report": PARTS | {"inference"},  # Grad-CAM of the images that it shows
    "engine": PARTS | {"report"},  # a report ends each run
    "cli": PARTS | {"engine", "inference", "report", "model_zoo"},
    "__main__": {"cli"},
}
MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "Counter", "OrderedDict", "deque"}
MUTABLE_NODES = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATORS = (
    {"append", "add", "clear", "discard", "extend", "insert"}
    | {"pop", "popitem", "remove", "reverse", "setdefault", "sort", "subtract", "update"}
)  # fmt: skip


def imported_parts(tree: ast.Module) -> set[str]:
    """The parts of imgcls that a file imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("imgcls.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "imgcls":
                found |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("imgcls."):
                found.add(node.module.split(".")[1])
    return found


def part_of(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else path.stem


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_flow_one_way(part):
    for path, tree in TREES.items():
        if part_of(path) == part:
            assert imported_parts(tree) - {part} <= ALLOWED[part], path


def test_every_part_has_a_rule():
    assert {part_of(path) for path in TREES} - {"__init__"} == set(ALLOWED)


def test_files_have_a_readable_size():
    lines = {path: len((PACKAGE / path).read_text().splitlines()) for path in TREES}
    assert [path for path, count in lines.items() if count > 300] == []
    short = [path for path, count in lines.items() if count < 40 and path.stem != "__init__"]
    assert len(short) <= 10, short


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in TREES if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_classes_have_one_name():
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def mutable_state(tree: ast.Module) -> Iterator[str]:
    """Module-level names whose value changes, or is mutable without being named like a constant."""
    constants = set()
    for node in tree.body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        called = isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in MUTABLE_CALLS
        for target in targets:
            if isinstance(target, ast.Name) and target.id != "__all__" and (isinstance(value, MUTABLE_NODES) or called):
                constants.add(target.id)
                if not re.fullmatch("_?[A-Z][A-Z0-9_]*", target.id):
                    yield target.id
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
        changed: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            changed = [node.func.value]
        elif isinstance(node, ast.Assign | ast.Delete):
            changed = [target.value for target in node.targets if isinstance(target, ast.Subscript)]
        elif isinstance(node, ast.AugAssign):
            changed = [node.target.value if isinstance(node.target, ast.Subscript) else node.target]
        yield from (item.id for item in changed if isinstance(item, ast.Name) and item.id in constants)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("KINDS = {'a': 1}\n__all__ = ['a']\n_SIZES = [1]\nseen = (1,)\nprint(KINDS.get('a'))", []),
        ("seen = []", ["seen"]),
        ("seen: dict[str, int] = collections.defaultdict(int)", ["seen"]),
        ("_SEEN = set()\ndef f():\n    _SEEN.add(1)", ["_SEEN"]),
        ("SEEN = {}\ndef f():\n    SEEN['a'] = 1", ["SEEN"]),
        ("SEEN = {}\ndef f():\n    del SEEN['a']", ["SEEN"]),
        ("COUNTS = Counter()\ndef f():\n    COUNTS['a'] += 1", ["COUNTS"]),
        ("stop = None\ndef f():\n    global stop", ["stop"]),
    ],
)
def test_mutable_state_is_recognised(code, names):
    assert list(mutable_state(ast.parse(code))) == names


@pytest.mark.parametrize("path", TREES, ids=str)
def test_no_module_level_mutable_state(path):
    assert list(mutable_state(TREES[path])) == []


def test_no_star_imports_and_no_cuda_calls():
    for path in TREES:
        text = (PACKAGE / path).read_text()
        assert "import *" not in text and ".cuda()" not in text, path


def test_import_changes_no_default_and_reads_no_data():
    """Checked in a new process, where nothing has been imported before."""
    code = """
import builtins, json, sys
from detectron2.config import get_cfg
before = get_cfg().dump()
opened = []
real = builtins.open
builtins.open = lambda *a, **k: (opened.append(str(a[0])), real(*a, **k))[1]
import imgcls, imgcls.engine
builtins.open = real
from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
print(json.dumps({
    "same": before == get_cfg().dump(),
    "data": [name for name in opened if "datasets" in name and not name.endswith((".py", ".pyc"))],
    "names": [n for n in ("imagenet_train", "digits_test") if n in DatasetCatalog.list()],
    "public": all(hasattr(imgcls, n) for n in ("get_cfg", "add_imgcls_config", "load_backbone")),
    "slow": [n for n in ("torchmetrics", "sklearn") if n in sys.modules],
    "registered": "build_mnetv1_backbone" in BACKBONE_REGISTRY and "ClsNet" in META_ARCH_REGISTRY,
}))
"""
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(out.stdout)
    names = ["imagenet_train", "digits_test"]
    assert found == {"same": True, "data": [], "names": names, "public": True, "slow": [], "registered": True}
