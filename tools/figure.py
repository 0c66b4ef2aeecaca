"""What figures share: colours, layout, and fonts for class names in any script.

No pyplot and no rcParams, so that the caller's matplotlib state is left alone.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.text import Text

from imgcls.errors import UserError

BLUE, ORANGE, GREY = "#1f6fb4", "#d9730d", "#8a8f98"
GREEN, RED = "#1a7f37", "#c62828"

# Fonts that have CJK characters, which matplotlib's default font draws as empty boxes; tried in this order.
_PREFERRED = ("Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback", "Noto Sans", "Arial Unicode MS")
# matplotlib's own font that draws a box for every character.
_PLACEHOLDER = "Last Resort"


def new_figure(width: float, height: float) -> Figure:
    """Creates an empty figure with constrained layout; sizes are in inches."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG, creates its folder, and returns the path.

    Raises:
        UserError: it cannot be written.
    """
    _apply_fonts(figure)
    try:
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; make the folder writable") from error
    return path


def plain(name: str, length: int = 24) -> str:
    """Shortens a name for a label, and escapes ``$``, which would start a formula."""
    short = name if len(name) <= length else name[: length - 1] + "…"
    return short.replace("$", r"\$")


def _apply_fonts(figure: Figure) -> None:
    """Selects fonts that have the characters of the figure's texts; characters that no font has become ``?``."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # tick labels get their text only when they are asked for
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families, missing = _find_families("".join(text.get_text() for text in texts))
    for text in texts:
        if families:
            text.set_fontfamily(families)
        readable = "".join("?" if char in missing else char for char in _replace_surrogates(text.get_text()))
        if readable != text.get_text():
            text.set_text(readable)


def _replace_surrogates(text: str) -> str:
    """Replaces the undecodable bytes of a name that was not valid UTF-8 on disk."""
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def _find_families(text: str) -> tuple[list[str], set[str]]:
    """Finds fonts for ``text``: a list of families to try in order, and the characters that none of them has.

    The list is empty where the default font has all characters.
    """
    default = FontProperties()
    missing = {char for char in text if char.isprintable()}
    missing -= _characters(font_manager.findfont(default), missing)
    if not missing:
        return [], set()
    families = default.get_family()
    for family, path in _installed_fonts():
        if found := _characters(path, missing):
            families = [*families, family]
            missing -= found
        if not missing:
            break
    return families, missing


def _characters(path: str, wanted: Iterable[str]) -> set[str]:
    font = font_manager.get_font(path)
    return {char for char in wanted if font.get_char_index(ord(char))}


def _installed_fonts() -> list[tuple[str, str]]:
    """Lists family and path of the upright fonts of normal weight, preferred families first."""
    # matplotlib's own list is a cache that lacks fonts installed since it was written.
    for path in {*font_manager.findSystemFonts()} - {entry.fname for entry in fontManager.ttflist}:
        with suppress(OSError, RuntimeError):  # not a font that matplotlib can read
            fontManager.addfont(path)
    fonts = {
        entry.name: entry.fname
        for entry in fontManager.ttflist
        if entry.style == "normal"
        and str(entry.weight) in ("400", "normal")
        and not entry.name.startswith(_PLACEHOLDER)
    }
    ranks = {
        name: next((rank for rank, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
        for name in fonts
    }
    return sorted(fonts.items(), key=lambda font: (ranks[font[0]], font[0]))
