"""The report of one run: a table of its metrics in the terminal, and a page."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from imgcls.config import load_cfg
from imgcls.data.dataset import Dataset, Datasets
from imgcls.disk import file_digest
from imgcls.errors import UserError
from imgcls.report import markup
from imgcls.report.augmented import TrainingImages, build_training_images, read_run_data
from imgcls.report.curves import Series, loss_series, metric_series
from imgcls.report.line_chart import line_chart
from imgcls.report.page import build_page, write_page
from imgcls.report.result_sections import ResultSections
from imgcls.report.run_files import Results, RunFiles, read_run

_NO_RESULTS = "no test set was evaluated: set DATASETS.TEST and evaluate the run to get metrics and the other figures"
_CONFIG = ("DATASETS", "INPUT", "MODEL.BACKBONE", "MODEL.MNET", "MODEL.CLSNET", "MODEL.WEIGHTS", "SOLVER", "TEST")


@dataclass
class Report:
    """Result of :func:`write_report`.

    Attributes:
        source: the folder that the first results were read from; ``OUTPUT_DIR`` where no test set was evaluated.
        table: the metrics as lines of text, or what to do to get them.
        page: path of the page.
    """

    source: Path
    table: str
    page: Path


def write_report(output_dir: str | Path, datasets: Datasets | None = None, folder: str | Path | None = None) -> Report:
    """Writes ``OUTPUT_DIR/report/index.html``.

    Args:
        output_dir: the run's ``OUTPUT_DIR``, with ``metrics.json`` and, where a test set was evaluated, ``inference/``.
        datasets: of the run; None reads them by ``config.yaml``, and the page says so where that is not possible.
        folder: for the page; None for ``OUTPUT_DIR/report``.

    Raises:
        UserError: a file of the run is missing or cannot be read, or the page cannot be written.
    """
    run = read_run(Path(output_dir))
    images, datasets = _read_training_images(run, datasets)
    sections = [("summary", "Summary", _summary(run, images))]
    sections.append(("training", "Training", draw_curves([(run, "")])))
    for number, results in enumerate(run.results):
        prefix = f"set{number}-"
        sections += ResultSections(results, _find_dataset(results, datasets), prefix, run.folder).build()
    if run.get("MODEL.META_ARCHITECTURE", "ClsNet") == "ClsNet":
        sections.append(("augmented", "Augmented images", _training_images(images)))
    if run.handoff:
        sections.append(("handoff", "Hand-off", _handoff(run)))
    sections.append(("config", "Config and versions", _config(run)))
    heading = f"<h1>{markup.name(run.folder.resolve().name)}</h1><p>{markup.name(run.folder)}</p>"
    page = build_page(f"{run.folder.resolve().name}: report", heading, sections)
    path = write_page(Path(folder) / "index.html" if folder else run.folder / "report" / "index.html", page)
    first = run.results[0] if run.results else None
    return Report(first.folder if first else run.folder, metrics_table(first) if first else _NO_RESULTS, path)


def metrics_table(results: Results) -> str:
    """Formats the metrics on one test set as aligned lines of text."""
    rows = [(metric_title(name), metric_value(name, value)) for name, value in results.content["metrics"].items()]
    width = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{title:<{width[0]}}  {value:>{width[1]}}" for title, value in rows]
    return "\n".join([*lines, f"on {results.content['num_images']:,} test images"])


def metric_title(name: str) -> str:
    """What a metric is called: ``"top1"`` becomes "top-1 accuracy"."""
    if top := re.fullmatch(r"top(\d+)", name):
        return f"top-{top[1]} accuracy"
    if name == "balanced":
        return "balanced accuracy"
    words = name.split("_")
    return f"{words[0]} ({words[1]})" if words[-1] in ("micro", "macro") else " ".join(words)


def metric_value(name: str, value: float | None) -> str:
    """A metric as text: all but losses are percentages."""
    if "loss" in name:
        return "-" if value is None else f"{value:.4f}"
    return "- %" if value is None else f"{value:.2f} %"


def draw_curves(runs: list[tuple[RunFiles, str]]) -> str:
    """Loss, metrics and learning rate over epochs, or iterations where the length of an epoch is unknown.

    Args:
        runs: each with the name that precedes its lines in the legends; empty for a single run.
    """
    lengths = [iterations_per_epoch(run) for run, _ in runs]
    title = "epoch" if all(lengths) else "iteration"
    losses: list[Series] = []
    metrics: list[Series] = []
    for (run, name), length in zip(runs, lengths, strict=True):
        x = _position(length if all(lengths) else None)
        for found, series in ((losses, loss_series(run.history, x)), (metrics, metric_series(run.history, x))):
            found += [line._replace(name=f"{name}, {line.name}" if name else line.name) for line in series]
    charts = line_chart(losses, title, "loss", "Loss") + line_chart(metrics, title, "%", "Metrics")
    return f'<div class="charts">{charts}</div>' if charts else markup.note("metrics.json has no losses or metrics.")


def iterations_per_epoch(run: RunFiles) -> float | None:
    """By ``SOLVER.EPOCHS``; None for a run whose length was given in iterations."""
    epochs, iterations = run.get("SOLVER.EPOCHS"), run.get("SOLVER.MAX_ITER")
    return iterations / epochs if epochs and iterations else None


def _position(length: float | None) -> Callable[[int], float]:
    return lambda iteration: (iteration + 1) / (length or 1)


def _summary(run: RunFiles, images: TrainingImages) -> str:
    cards = []
    for results in run.results:
        for name, value in results.content["metrics"].items():
            key = "/".join(filter(None, (results.name, results.task, name)))
            source = f"<small>{markup.name(results.name)}</small>" if results.name else ""
            cards.append(
                f'<div class="metric"><span>{markup.text(metric_title(name))}</span>'
                f'<b data-metric="{markup.text(key)}">{metric_value(name, value)}</b>{source}</div>'
            )
    last = max(run.history)
    length = iterations_per_epoch(run)
    pairs = [("network", markup.name(_network(run)))] if run.config else []
    pairs += [(f"training set {n}", f"{count:,} images") for n, count in images.counts.items()]
    for results in run.results:
        evaluated = datetime.fromtimestamp(results.path.stat().st_mtime)
        count = f"{results.content['num_images']:,} images, {len(results.classes):,} classes"
        pairs.append(
            (f"test set {results.name or _only(run)}".strip(), f"{count}, evaluated {evaluated:%Y-%m-%d %H:%M}")
        )
    pairs.append(("length", f"{last + 1:,} iterations" + (f", {(last + 1) / length:.4g} epochs" if length else "")))
    if run.seconds:
        pairs.append(("training time", f"{timedelta(seconds=round(run.seconds))} without evaluation and checkpoints"))
    if run.proof:
        pairs.append(("backbone", markup.name(run.proof)))
    if not run.results:
        cards.append(f"<p>{markup.text(_NO_RESULTS)}</p>")
    return f'<div class="metrics">{"".join(cards)}</div>{markup.facts(pairs)}'


def _only(run: RunFiles) -> str:
    """The name of the test set, where there is one only."""
    names = list(run.get("DATASETS.TEST") or [])
    return str(names[0]) if len(names) == 1 else ""


def _network(run: RunFiles) -> str:
    parts = [run.get("MODEL.META_ARCHITECTURE", ""), run.get("MODEL.BACKBONE.NAME", "")]
    if "mnet" in str(parts[1]):
        parts.append(f"width {run.get('MODEL.MNET.WIDTH_MULT')}")
    if parts[0] == "ClsNet":
        parts.append(f"{run.get('MODEL.CLSNET.INPUT_SIZE')} pixels")
    return ", ".join(str(part) for part in parts if part)


def _training_images(images: TrainingImages) -> str:
    if images.reason:
        return markup.note(f"Not shown: {images.reason}")
    cards = [markup.image_card(uri, [", ".join(map(markup.name, names)) or "none"]) for uri, names in images.images]
    note = markup.note(
        "Training images as the network sees them: cropped and augmented by the config, not yet normalised."
    )
    return f'{note}<div class="gallery">{"".join(cards)}</div>'


def _handoff(run: RunFiles) -> str:
    proof = run.handoff
    left_out = f"; {proof['left_out']:,} more that it does not need" if proof["left_out"] else ""
    pairs = [
        ("backbone", markup.name(proof["file"])),
        ("SHA-256", markup.text(proof["sha256"])),
        ("tensors compared", f"{proof['tensors']:,}, all bits are equal{left_out}"),
        ("loaded into", markup.name(proof["detector"])),
        ("exported from", markup.name(proof["checkpoint"])),
    ]
    checkpoint = run.folder / Path(str(proof["checkpoint"])).name
    same = checkpoint.is_file() and file_digest(str(checkpoint)) == proof["checkpoint_sha256"]
    message = "detectron2 loaded the exported backbone into this detector, and each of its tensors was compared."
    if not same:
        message += " The checkpoint is not the exported one any more: this hand-off was of earlier weights."
    return markup.note(message) + markup.facts(pairs)


def _config(run: RunFiles) -> str:
    versions = markup.facts([(key, markup.text(value)) for key, value in run.versions.items()])
    if not run.config:
        return versions + markup.note("config.yaml is missing.")
    parts = {key: run.get(key) for key in _CONFIG}
    main = yaml.safe_dump({key: part for key, part in parts.items() if part is not None}, allow_unicode=True)
    whole = yaml.safe_dump(run.config, allow_unicode=True)
    return (
        f"{versions}<details><summary>main keys</summary><pre>{markup.text(main)}</pre></details>"
        f"<details><summary>config.yaml</summary><pre>{markup.text(whole)}</pre></details>"
    )


def _read_training_images(run: RunFiles, datasets: Datasets | None) -> tuple[TrainingImages, Datasets | None]:
    if run.get("MODEL.META_ARCHITECTURE") != "ClsNet":
        return TrainingImages(reason="config.yaml of a classifier is missing."), None
    try:
        cfg: CfgNode = load_cfg(str(run.folder / "config.yaml"))
        datasets = datasets or read_run_data(cfg)
    except UserError as error:
        return TrainingImages(reason=str(error)), None
    return build_training_images(cfg, datasets), datasets


def _find_dataset(results: Results, datasets: Datasets | None) -> Dataset | None:
    """The test set of a folder, which the evaluators name after it; with one test set, there is no choice."""
    if datasets is None:
        return None
    for dataset in datasets.test:
        if len(datasets.test) == 1 or re.sub(r"[^\w.-]+", "_", dataset.name) == results.name.rpartition("/")[2]:
            return dataset
    return None
