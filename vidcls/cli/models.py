"""``vidcls models``: what is in the registry, and what of it is on this machine."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o

if TYPE_CHECKING:
    from vidcls.config import ModelSpec, Registry

HEADINGS = ("name", "architecture", "dataset", "frames", "top-1", "params M", "GMACs", "license", "weights")
NUMBERS = ("frames", "top-1", "params M", "GMACs")
# What a narrow terminal goes without, in this order; a name mostly tells the architecture.
DISPENSABLE = ("license", "architecture", "dataset", "frames", "weights")
MAX_CELL = 18  # characters of a license or data set in the table


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", autocompletion=o.complete_models, help="Show every detail of this model."
        ),
    ] = None,
    json: o.JsonOption = False,
    registry: o.RegistryOption = None,
) -> None:
    """List the models that vidcls knows, or show one in detail.

    Parameters and multiply-adds (10⁹, one view) are given as ours | published; top-1 is the authors' own.
    """
    from vidcls.config import load_registry

    known = load_registry(registry)
    if name is not None:
        spec = known[name]
        print(
            json_module.dumps(entry(spec), indent=2) if json else _details(spec, spec.name == known.default)
        )
    elif json:
        print(json_module.dumps([entry(spec) for spec in known.values()], indent=2))
    elif sys.stdout.isatty():
        _print_table(known)
    else:
        print("\t".join(HEADINGS))
        for spec in known.values():
            print("\t".join(cells(spec)))


def entry(spec: ModelSpec) -> dict[str, Any]:
    """Return an entry as plain data, with ``present``: whether its weights are on this machine."""
    return {**spec.model_dump(mode="json"), "present": _present(spec)}


def cells(spec: ModelSpec) -> tuple[str, ...]:
    """Return an entry as one line of the table."""
    published, ours = spec.published, spec.ours
    present = _present(spec)
    return (
        spec.name,
        spec.architecture,
        spec.dataset or "-",
        str(spec.input.num_frames),
        "-" if published.top1 is None else f"{published.top1:.1f}",
        _pair(
            None if ours is None else f"{ours.params / 1e6:.1f}",
            None if published.params is None else f"{published.params / 1e6:.1f}",
        ),
        _pair(
            None if ours is None else _gmacs(ours.gmacs),
            None if published.gmacs is None else _gmacs(published.gmacs),
        ),
        spec.license or "-",
        "none" if present is None else "here" if present else "to fetch",
    )


def _pair(ours: str | None, published: str | None) -> str:
    return f"{ours or '-'} | {published or '-'}"


def _gmacs(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def _present(spec: ModelSpec) -> bool | None:
    if spec.weights is None:
        return None
    from vidcls.zoo.weights import is_present

    return is_present(spec.weights)


def _print_table(known: Registry) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = [dict(zip(HEADINGS, map(_cut, cells(spec)), strict=True)) for spec in known.values()]
    widths = {heading: max(len(heading), *(len(row[heading]) for row in rows)) for heading in HEADINGS}
    shown = _columns(widths, console.width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in shown:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=True)
    for row in rows:
        style = "bold" if row["name"] == known.default else None
        # Text, not markup: an entry of the person's own may hold square brackets.
        table.add_row(*(Text(row[heading]) for heading in shown), style=style)
    console.print(table)
    hidden = [heading for heading in HEADINGS if heading not in shown]
    wider = f"; a wider terminal shows {', '.join(hidden)} too" if hidden else ""
    console.print(
        f"\nParameters (10⁶) and multiply-adds (10⁹, one view): ours | published{wider}.\n"
        f"{len(known)} models; default: {known.default or 'none'}. `vidcls models NAME` shows one in detail."
    )


def _columns(widths: dict[str, int], room: int) -> list[str]:
    """Choose the columns that fit side by side, two blanks apart."""
    shown = list(HEADINGS)
    for heading in DISPENSABLE:
        if sum(widths[name] + 2 for name in shown) - 2 <= room:
            break
        shown.remove(heading)
    return shown


def _cut(cell: str) -> str:
    # Names, figures and architectures are shorter or must be whole; descriptions of data sets need not be.
    return (
        cell
        if len(cell) <= MAX_CELL or " " not in cell or "|" in cell
        else f"{cell[: MAX_CELL - 1].rstrip()}…"
    )


def _details(spec: ModelSpec, default: bool) -> str:
    import yaml

    data = {key: value for key, value in entry(spec).items() if value not in (None, {}, [])}
    data["input"] = {key: value for key, value in data["input"].items() if value is not None}
    data["published"] = {key: value for key, value in data["published"].items() if value is not None}
    if default:
        data["default"] = True
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    return text.rstrip("\n")
