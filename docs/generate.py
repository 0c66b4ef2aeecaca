#!/usr/bin/env python
"""Writes the generated parts of the manual: the config keys, the model zoo, and the list of modules.

    python docs/generate.py

A test compares the pages with what this script would write.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from detectron2.config import CfgNode

from imgcls.config import get_cfg

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "imgcls"
_BEGIN, _END = "<!-- begin: written by docs/generate.py -->", "<!-- end -->"
_GROUPS = {"ImageNet": "Classifiers", "COCO-Detection": "Detectors", "quickstart": "Small data", "transfer": "Transfer"}


def main() -> None:
    """Writes every generated page."""
    for path, text in build_pages().items():
        path.write_text(text, encoding="utf-8")
    for path in set((DOCS / "api").glob("imgcls*.md")) - build_pages().keys():
        path.unlink()


def build_pages() -> dict[Path, str]:
    """The text of every page that is generated, in whole or in part."""
    pages = {
        DOCS / "config.md": _fill(DOCS / "config.md", _config_table()),
        DOCS / "model_zoo.md": _fill(DOCS / "model_zoo.md", _model_zoo()),
    }
    return pages | {DOCS / "api" / f"{name}.md": text for name, text in _api_pages()}


def _fill(page: Path, content: str) -> str:
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{content}\n\n{_END}{rest.partition(_END)[2]}"


def read_keys() -> list[tuple[str, str, str]]:
    """Every key of ``imgcls/config/defaults.py`` with its default and the comment above it, in the file's order."""
    source = (PACKAGE / "config" / "defaults.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    cfg = get_cfg()
    keys = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            key = ast.unparse(node.targets[0]).removeprefix("cfg.")
            value = _lookup(cfg, key)
            if not isinstance(value, CfgNode):
                keys.append((node.lineno, key, _show(value), _comment_above(lines, node.lineno - 1)))
    return [tuple(row[1:]) for row in sorted(keys)]


def _lookup(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _show(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}" if value and abs(value) < 1e-3 else str(round(value, 4))
    return f'"{value}"' if isinstance(value, str) else str(value)


def _comment_above(lines: list[str], row: int) -> str:
    comment = []
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        comment.insert(0, lines[row].strip().lstrip("# "))
    return " ".join(comment)


def _config_table() -> str:
    tables: dict[str, list[str]] = {}
    for key, default, comment in read_keys():
        section, *rest = key.split(".")
        section = f"{section}.{rest[0]}" if section == "MODEL" and len(rest) == 2 else section
        tables.setdefault(section, []).append(f"| `{key}` | `{default}` | {_escape(comment)} |")
    head = "| key | default | meaning |\n|---|---|---|\n"
    return "\n\n".join(f"## {section}\n\n{head}" + "\n".join(tables[section]) for section in sorted(tables))


def _escape(comment: str) -> str:
    """Quoted values and keys of the config as code; characters that mean something in Markdown as they are."""
    text = comment.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r'("[\w./+-]*"|\b[A-Z][A-Z_0-9]+(?:\.[A-Z_0-9]+)+\b|\b[A-Z]+_[A-Z_]+\b)', r"`\1`", text)


def _model_zoo() -> str:
    goldens = json.loads((ROOT / "configs" / "complexity.json").read_text(encoding="utf-8"))
    parts = []
    for group, title in _GROUPS.items():
        rows = ["| config | input | parameters | in the backbone | multiply-accumulates |", "|---|---|---|---|---|"]
        for name, golden in goldens.items():
            if name.startswith(f"{group}/"):
                counts = f"{golden['parameters']:,} | {golden['trunk']:,} | {golden['macs']:,}"
                rows.append(f"| [`{name}`](../configs/{name}) | {golden['input_size']} | {counts} |")
        parts.append("\n".join([f"## {title}", "", *rows]))
    return "\n\n".join(parts)


def _api_pages() -> Iterator[tuple[str, str]]:
    """A page for each sub-package, and one for the modules of the top level; private modules are left out."""
    for folder in [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))]:
        files = sorted(folder.glob("*.py")) if folder == PACKAGE else sorted(folder.rglob("*.py"))
        names = [_module(file) for file in files if not file.stem.startswith("_")]
        if names:
            package = _module(folder)
            sections = [f"# {package}", f"```{{eval-rst}}\n.. automodule:: {package}\n```"]
            sections += [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```" for name in names]
            yield package, "\n\n".join(sections) + "\n"


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


if __name__ == "__main__":
    main()
