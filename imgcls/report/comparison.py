"""Several runs side by side in one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgcls.errors import UserError
from imgcls.report import markup
from imgcls.report.page import build_page, write_page
from imgcls.report.run_files import RunFiles, read_run
from imgcls.report.run_report import draw_curves, metric_title, metric_value

# Where a run is, not what it does.
_PLACES = ("OUTPUT_DIR",)


def write_comparison(output_dirs: Sequence[str | Path], folder: str | Path) -> Path:
    """Writes ``index.html`` into ``folder`` and returns its path.

    Args:
        output_dirs: of at least two runs.
        folder: created when missing.

    Raises:
        UserError: fewer than two different runs, a file of a run is missing or damaged, or the page cannot be written.
    """
    paths = [Path(path) for path in output_dirs]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise UserError("a comparison needs two or more different runs; give each OUTPUT_DIR once")
    runs = list(zip(map(read_run, paths), short_names(paths), strict=True))
    sections = [
        ("metrics", "Metrics", _metrics(runs)),
        ("training", "Training", draw_curves(runs)),
        ("config", "Config keys that differ", _changes(runs)),
    ]
    if classes := _classes(runs):
        sections.append(("classes", "Classes", classes))
    names = ", ".join(markup.name(name) for _, name in runs)
    heading = f"<h1>Comparison of {len(runs)} runs</h1><p>{names}</p>"
    return write_page(Path(folder) / "index.html", build_page("comparison of runs", heading, sections))


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with keys such as ``"SOLVER.MAX_ITER"``."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _metrics(runs: Sequence[tuple[RunFiles, str]]) -> str:
    columns = [
        {
            "/".join(filter(None, (results.name, results.task, name))): value
            for results in run.results
            for name, value in results.content["metrics"].items()
        }
        for run, _ in runs
    ]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = []
    for key in keys:
        source, _, metric = key.rpartition("/")
        test_set = source.rpartition("/")[0]
        values = [column.get(key) for column in columns]
        known = [value for value in values if value is not None]
        best = (min if "loss" in metric else max)(known) if known else None
        cells = []
        for (_, name), value in zip(runs, values, strict=True):
            mark = ' class="number best"' if value is not None and value == best else ' class="number"'
            shown = f'<b data-metric="{markup.text(name)}/{markup.text(key)}">{metric_value(metric, value)}</b>'
            cells.append(f'<td{mark} data-value="{"" if value is None else value}">{shown}</td>')
        title = f"{metric_title(metric)}, {test_set}" if test_set else metric_title(metric)
        rows.append([markup.cell(title), *cells])
    times = [markup.cell(round(run.seconds, 1)) for run, _ in runs]
    rows.append([markup.cell("training time (s)"), *times])
    rows.append([markup.cell("iterations"), *(markup.cell(max(run.history) + 1) for run, _ in runs)])
    return markup.table(["metric", *(name for _, name in runs)], rows, "The best value of each row is marked")


def _changes(runs: Sequence[tuple[RunFiles, str]]) -> str:
    configs = [flatten(run.config) for run, _ in runs]
    if missing := [name for (_, name), config in zip(runs, configs, strict=True) if not config]:
        return markup.note(f"config.yaml is missing in {', '.join(missing)}.")
    rows = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [repr(config[key]) if key in config else "-" for config in configs]
        if key not in _PLACES and len(set(values)) > 1:
            rows.append([markup.cell(key), *map(markup.cell, values)])
    if not rows:
        return markup.note("All keys have the same values.")
    return markup.table(["key", *(name for _, name in runs)], rows, f"{len(rows)} keys")


def _classes(runs: Sequence[tuple[RunFiles, str]]) -> str:
    """Accuracy or AP of each class in each run, where the first test sets have the same classes."""
    if not all(run.results for run, _ in runs):
        return ""
    first = [run.results[0] for run, _ in runs]
    if len({(results.task, *results.classes) for results in first}) > 1:
        return markup.note("The runs have different classes.")
    metric = "accuracy" if first[0].task == "accuracy" else "AP"
    rows = []
    for index, name in enumerate(first[0].classes):
        values = [results.content["per_class"][index].get(metric) for results in first]
        known = [value for value in values if value is not None]
        spread = max(known) - min(known) if known else None
        shown = [markup.cell(value, percent=True) for value in (*values, spread)]
        rows.append([markup.cell(name), *shown])
    header = ["class", *(f"{metric}, {name}" for _, name in runs), "largest difference"]
    return markup.table(header, rows, f"{len(rows):,} classes", searchable=len(rows) > 20)
