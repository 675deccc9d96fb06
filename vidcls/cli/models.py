"""``vidcls models``: what is in the registry, and what of it is on this machine."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from vidcls.config import ModelSpec, Registry

HEADINGS = (
    *("name", "dataset", "top-1", "MB", "weights"),
    *("params M", "GMACs", "frames", "architecture", "license"),
)
TEXTS = ("name", "dataset", "weights", "architecture", "license")
# What a narrow terminal goes without, in this order; a name mostly tells the architecture.
DISPENSABLE = ("license", "architecture", "frames", "GMACs", "params M", "weights", "MB", "dataset")
MAX_CELL = 18  # characters of a license or data set in the table
WEIGHTS = {True: "here", False: "to fetch", None: "none"}


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", autocompletion=o.complete_models, help="Show every detail of this model."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only models of this data set, such as kinetics400 or ssv2."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only architectures that start with this, such as vivit."),
    ] = None,
    has_weights: Annotated[
        bool, typer.Option("--has-weights", help="Only models that come with weights.")
    ] = False,
    toys: Annotated[
        bool, typer.Option("--toys", help="Also show the tiny untrained models for tests.")
    ] = False,
    json: o.JsonOption = False,
    registry: o.RegistryOption = None,
) -> None:
    """List the models that vidcls knows, or show one in detail; those that can run immediately come first.

    MB is the size of the fp32 weights. Parameters and multiply-adds (10⁹, one view) are counted here | published;
    top-1 (%) is as published. Piped output and JSON include the toy models.

    Examples:
    - `vidcls models --data kinetics400 --has-weights`
    - `vidcls models vivit-b-16x2-k400-hf`
    """
    from vidcls.config import load_registry
    from vidcls.zoo.catalog import select

    known = load_registry(registry)
    terminal = sys.stdout.isatty()
    toys = toys or json or not terminal
    found = select(known, dataset=data, family=family, has_weights=has_weights, toys=toys)
    if name is not None:
        spec = known[name]
        print(
            json_module.dumps(entry(spec), indent=2) if json else _details(spec, spec.name == known.default)
        )
    elif json:
        print(json_module.dumps([entry(spec) for spec in found], indent=2))
    elif terminal:
        _print_table(found, known)
    else:
        for line in (HEADINGS, *map(cells, found)):
            print("\t".join(line))


def entry(spec: ModelSpec) -> dict[str, Any]:
    """Return an entry as plain data, with ``present``: whether its weights are on this machine."""
    from vidcls.zoo.catalog import is_present

    return {**spec.model_dump(mode="json"), "present": is_present(spec)}


def cells(spec: ModelSpec) -> tuple[str, ...]:
    """Return an entry as one line of the table."""
    from vidcls.zoo.catalog import is_present

    published, ours = spec.published, spec.ours
    figures = (
        "-" if published.top1 is None else f"{published.top1:.1f}",
        "-" if ours is None else f"{4 * ours.params / 1e6:.{0 if ours.params > 1e6 else 1}f}",
        WEIGHTS[is_present(spec)],
        _pair(_millions, None if ours is None else ours.params, published.params),
        _pair(_gmacs, None if ours is None else ours.gmacs, published.gmacs),
        str(spec.input.num_frames),
    )
    texts = (spec.name, spec.dataset or "-"), (spec.architecture, spec.license or "-")
    return (*map(printable, texts[0]), *figures, *map(printable, texts[1]))


def _pair(text: Callable[[float], str], ours: float | None, published: float | None) -> str:
    return " | ".join("-" if value is None else text(value) for value in (ours, published))


def _millions(value: float) -> str:
    return f"{value / 1e6:.1f}"


def _gmacs(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def _print_table(found: list[ModelSpec], known: Registry) -> None:
    from vidcls.output.progress import wrapped
    from vidcls.output.terminal_table import print_columns

    rows = [[_cut(cell) for cell in cells(spec)] for spec in found]
    for spec, row in zip(found, rows, strict=True):
        row[0] += " *" if spec.name == known.default else ""
    hidden = print_columns(HEADINGS, rows, left=TEXTS, dispensable=DISPENSABLE, as_list=False)
    print()
    for note in _notes(len(found), known, hidden):
        print(wrapped(note, sys.stdout))


def _notes(count: int, known: Registry, hidden: list[str]) -> list[str]:
    """Return what the reader needs to understand the table."""
    notes = [f"{count} of {len(known)} models; * default: {known.default or 'none'}."]
    if not {"params M", "GMACs"} <= set(hidden):
        notes.append("Parameters (10⁶) and multiply-adds (10⁹, one view): counted here | published.")
    if hidden:
        notes.append(f"A wider terminal shows {', '.join(hidden)} too.")
    return [*notes, "`vidcls models NAME` shows one in detail."]


def _cut(cell: str) -> str:
    # Names, figures and architectures are shorter or must be whole; descriptions of data sets need not be.
    whole = len(cell) <= MAX_CELL or " " not in cell or "|" in cell
    return cell if whole else f"{cell[: MAX_CELL - 1].rstrip()}…"


def _details(spec: ModelSpec, default: bool) -> str:
    import yaml

    data = {key: value for key, value in entry(spec).items() if value not in (None, {}, [])}
    for part in ("input", "published"):
        data[part] = {key: value for key, value in data.get(part, {}).items() if value is not None}
    if default:
        data["default"] = True
    options: dict[str, Any] = {"sort_keys": False, "width": 100, "default_flow_style": None}
    text: str = yaml.safe_dump(data, allow_unicode=True, **options)
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(data, allow_unicode=False, **options)  # the same, with escapes
    return text.rstrip("\n")
