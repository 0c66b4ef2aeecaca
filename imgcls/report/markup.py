"""Pieces of HTML. Names come from files that anybody may have made, so all text is escaped here."""

import html
import json
from collections.abc import Sequence
from typing import Any


def text(value: object) -> str:
    """Escapes any text for element content and attributes; undecodable bytes of file names become U+FFFD."""
    clean = "".join("\ufffd" if "\ud800" <= char <= "\udfff" or char == "\0" else char for char in str(value))
    return html.escape(clean, quote=True)


def name(value: object) -> str:
    """A class or file name, in its own writing direction."""
    return f'<bdi dir="auto">{text(value)}</bdi>'


def data(identifier: str, content: Any) -> str:
    """Data for the page's script. No ``<`` remains, so that no name can close the element."""
    dumped = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(identifier)}">{dumped}</script>'


def section(identifier: str, title: str, *parts: str) -> str:
    """A section that the navigation links to."""
    return f'<section id="{text(identifier)}"><h2>{text(title)}</h2>{"".join(parts)}</section>'


def note(message: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="note">{text(message)}</p>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values; values are HTML already."""
    return f'<dl class="facts">{"".join(f"<dt>{text(k)}</dt><dd>{v}</dd>" for k, v in pairs)}</dl>'


def cell(value: Any, percent: bool = False) -> str:
    """A table cell that sorts by its value: numbers as numbers, None last."""
    if value is None:
        return '<td class="number" data-value="">-</td>'
    if isinstance(value, (int, float)):
        shown = f"{value:.2f} %" if percent else (f"{value:,}" if isinstance(value, int) else f"{value:.4g}")
        bar = f' style="--share:{min(max(value, 0), 100):.1f}%"' if percent else ""
        return f'<td class="number{" bar" if percent else ""}" data-value="{value!r}"{bar}>{shown}</td>'
    return f"<td>{name(value)}</td>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str, searchable: bool = False) -> str:
    """A table whose headers are buttons that sort it.

    Args:
        header: titles of the columns.
        rows: cells from ``cell``.
        caption: what the table holds.
        searchable: whether a field above it filters the rows.
    """
    head = "".join(f'<th scope="col"><button type="button">{text(title)}</button></th>' for title in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    field = '<input type="search" class="filter" placeholder="filter" aria-label="filter the rows">'
    return (
        f'<div class="table">{field if searchable else ""}<div class="scroll" tabindex="0"><table class="sortable">'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def image_card(
    uri: str | None, lines: Sequence[str], kind: str = "", title: str = "", overlays: Sequence[tuple[str, str]] = ()
) -> str:
    """An image with lines of HTML below it.

    Args:
        uri: data URI; None where the image cannot be read.
        lines: HTML.
        kind: ``"right"`` or ``"wrong"``, for the colour.
        title: shown under the pointer.
        overlays: data URIs with the names of the classes that they explain; ``view_switch`` shows them instead of the
            image.
    """
    image = f'<img src="{uri}" alt="{text(title)}">' if uri else '<span class="gone">cannot be read</span>'
    caption = "".join(f"<span>{line}</span>" for line in lines)
    for number, (overlay, name_) in enumerate(overlays, start=1):
        image += f'<img class="view{number}" src="{overlay}" alt="Grad-CAM of {text(name_)}">'
        caption += f'<span class="view{number}"><span class="role">Grad-CAM of</span> {name(name_)}</span>'
    classes = f"card {kind} has{len(overlays)}"
    return f'<figure class="{classes}" title="{text(title)}">{image}<figcaption>{caption}</figcaption></figure>'


def view_switch(group: str, labels: Sequence[str]) -> str:
    """Radio buttons that choose what all cards of the gallery around them show: the image, or one of its overlays.

    Args:
        group: a name that is unique in the page.
        labels: of the image and of each overlay.
    """
    buttons = [
        f'<label><input type="radio" name="{text(group)}" value="{number}"{" checked" if number == 0 else ""}> '
        f"{text(label)}</label>"
        for number, label in enumerate(labels)
    ]
    return f'<div class="tools" role="radiogroup" aria-label="what the cards show">{"".join(buttons)}</div>'
