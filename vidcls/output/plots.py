"""Figures by matplotlib, drawn without a window."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from vidcls.errors import OutputError, needing, printable


def new_figure(subject: str, width: float, height: float) -> Any:
    """Return an empty figure.

    Args:
        subject: What it is for, named where it cannot be drawn.
        width: Inches.
        height: Inches.
    """
    remedy = "pip install 'vidcls[train]'"
    with needing(subject, "matplotlib is not installed", remedy):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure in the format that the suffix names.

    Raises:
        OutputError: It cannot be written, or matplotlib has no such format.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # shown as a box
            figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error).split(" (")[0]
        remedy = "name a .png, .svg or .pdf file in a folder that can be written to"
        raise OutputError(printable(str(path)), f"cannot be written ({said})", remedy) from None
