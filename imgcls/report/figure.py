"""What all pictures share; no pyplot, so that nothing of a caller's matplotlib state is touched."""

from pathlib import Path

from matplotlib.figure import Figure

from imgcls.errors import UserError

BLUE, ORANGE, GREY = "#1f6fb4", "#d9730d", "#8a8f98"
GREEN, RED = "#1a7f37", "#c62828"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes the PNG, in a folder that need not be there yet, and gives its path back.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; make the folder writable") from error
    return path


def plain(name: str, length: int = 24) -> str:
    """A class name as a label: cut where it is long, and a ``$`` of it is not read as a formula."""
    short = name if len(name) <= length else name[: length - 1] + "…"
    return short.replace("$", r"\$")
