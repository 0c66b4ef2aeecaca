"""One self-contained HTML file: nothing in it is loaded from anywhere."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from imgcls import __version__
from imgcls.disk import write_text
from imgcls.report.markup import section, text

_STATIC = Path(__file__).parent / "static"


def build_page(title: str, heading: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page.

    Args:
        title: of the window.
        heading: HTML of the first lines.
        sections: identifier, title and HTML of each.
    """
    style = (_STATIC / "report.css").read_text(encoding="utf-8")
    script = (_STATIC / "report.js").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{text(key)}"><bdi dir="auto">{text(name)}</bdi></a>' for key, name, _ in sections)
    # Only this script may run, and nothing may be loaded: a hostile name that got past the escaping would do nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<title>{text(title)}</title><link rel="icon" href="data:,">',
            f"<style>{style}</style></head><body>",
            f"<header>{heading}</header><nav>{links}</nav><main>",
            *(section(*part) for part in sections),
            f"</main><footer>imgcls {text(__version__)}</footer>",
            f"<script>{script}</script></body></html>\n",
        ]
    )


def write_page(path: Path, page: str) -> Path:
    """Writes the page and returns its path.

    Raises:
        UserError: it cannot be written.
    """
    write_text(path, page, "make the folder writable, or name another one with --output")
    return path
