#!/usr/bin/env python
"""Counts parameters and multiply-accumulates of every config under configs/, into configs/complexity.json.

Prints the table of the README. A test holds every config to the numbers in the file.
"""

import json
from pathlib import Path

from imgcls.config import load_cfg
from imgcls.report.complexity import build_complexity

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Writes the file and prints the table."""
    goldens = {}
    for path in sorted(CONFIGS.rglob("*.yaml")):
        goldens[path.relative_to(CONFIGS).as_posix()] = build_complexity(load_cfg(str(path)))
    (CONFIGS / "complexity.json").write_text(json.dumps(goldens, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table_rows(goldens)))


def table_rows(goldens: dict[str, dict[str, int]]) -> list[str]:
    """The Markdown table, a line a string."""
    rows = ["| config | input | parameters | of them backbone | multiply-accumulates |", "|---|---|---|---|---|"]
    for name, golden in goldens.items():
        rows.append(
            f"| [{name}](configs/{name}) | {golden['input_size']} | {golden['parameters']:,} | {golden['trunk']:,} "
            f"| {golden['macs']:,} |"
        )
    return rows


if __name__ == "__main__":
    main()
