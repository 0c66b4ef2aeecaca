"""A matrix of counts between classes that stays readable from 2 to 1,000 classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgcls.report.markup import cell, data, name, table, text

# Up to here a table with numbers; a canvas that can be zoomed beyond.
MAX_TABLE = 25
_MAX_PAIRS = 100


def draw_matrix(
    identifier: str,
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
    classes: Sequence[str],
    words: tuple[str, str],
) -> str:
    """Each row as shares of its class's images.

    Args:
        identifier: of the element, unique in the page.
        counts: ``(K, K)``.
        totals: ``(K,)``, images of each row's class.
        classes: K names.
        words: what rows and columns are, such as ``("true", "predicted")``.
    """
    if len(classes) <= MAX_TABLE:
        return _draw_table(counts, totals, classes, words)
    rows, columns = counts.nonzero()
    content = {
        "names": list(classes),
        "totals": totals.tolist(),
        "rows": rows.tolist(),
        "columns": columns.tolist(),
        "counts": counts[rows, columns].tolist(),
        "words": list(words),
    }
    options = "".join(f'<option value="{text(c)}"></option>' for c in classes)
    return (
        f'<div class="matrix" data-source="{identifier}"><div class="tools">'
        '<button type="button" data-zoom="2">zoom in</button><button type="button" data-zoom="0.5">zoom out</button>'
        '<button type="button" data-zoom="0">whole matrix</button>'
        f'<input type="search" list="{identifier}-names" placeholder="go to a class" aria-label="go to a class">'
        f'<datalist id="{identifier}-names">{options}</datalist></div>'
        f'<canvas tabindex="0" role="img" aria-label="matrix of {len(classes)} classes"></canvas>'
        '<p class="readout" aria-live="polite">Drag to move, double-click to zoom, and point at a cell to read it.</p>'
        f"</div>{data(identifier, content)}"
    )


def _draw_table(
    counts: NDArray[np.int64], totals: NDArray[np.int64], classes: Sequence[str], words: tuple[str, str]
) -> str:
    head = "".join(f'<th scope="col"><span>{name(c)}</span></th>' for c in classes)
    body = []
    for row, total, title in zip(counts.tolist(), totals.tolist(), classes, strict=True):
        cells = []
        for column, (count, other) in enumerate(zip(row, classes, strict=True)):
            share = count / max(total, 1)
            tip = f"{words[0]} {title}, {words[1]} {other}: {count:,} of {total:,} ({100 * share:.1f} %)"
            strong = " strong" if share > 0.4 else ""
            kind = " own" if classes[column] == title else " mistake" if words[0] == "true" else ""
            look = f'class="heat{strong}{kind}" style="--heat:{np.sqrt(share):.3f}"'
            cells.append(f'<td {look} title="{text(tip)}">{count or ""}</td>')
        body.append(f'<tr><th scope="row">{name(title)} <small>{total:,}</small></th>{"".join(cells)}</tr>')
    corner = f'<td class="corner">{text(words[0])} ↓ {text(words[1])} →</td>'
    return (
        f'<div class="scroll" tabindex="0"><table class="heatmap"><thead><tr>{corner}{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def confused_pairs(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The mistakes that are made most often, as a sortable table."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    totals = counts.sum(axis=1)
    rows = []
    for flat in np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_PAIRS]:
        true, predicted = np.unravel_index(flat, counts.shape)
        count = int(mistakes[true, predicted])
        if count == 0:
            break
        share = 100 * count / int(totals[true])
        rows.append([cell(classes[true]), cell(classes[predicted]), cell(count), cell(share, percent=True)])
    if not rows:
        return "<p>No test image was confused.</p>"
    header = ("true class", "predicted as", "images", "share of the true class")
    return table(header, rows, f"Most confused pairs ({len(rows):,})", searchable=len(rows) > 20)
