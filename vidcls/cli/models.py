"""``vidcls models``: what is in the registry, and what of it is on this machine."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o

if TYPE_CHECKING:
    from vidcls.config import ModelSpec, Registry

HEADINGS = ("name", "architecture", "dataset", "frames", "top-1", "params", "GMACs", "licence", "weights")


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", autocompletion=o.complete_models, help="Show this model whole."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    registry: o.RegistryOption = None,
) -> None:
    """List the models that vidcls knows, or show one whole.

    Parameters and multiply-adds (10⁹, one view) are given as ours | published; top-1 is the authors' own.
    """
    from vidcls.config import load_registry

    known = load_registry(registry)
    if name is not None:
        spec = known[name]
        print(json_module.dumps(entry(spec), indent=2) if json else _whole(spec, spec.name == known.default))
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
            None if ours is None else f"{ours.params / 1e6:.1f}M",
            None if published.params is None else f"{published.params / 1e6:.1f}M",
        ),
        _pair(
            None if ours is None else f"{ours.gmacs:.4g}",
            None if published.gmacs is None else f"{published.gmacs:.4g}",
        ),
        spec.licence or "-",
        "none" if present is None else "here" if present else "to fetch",
    )


def _pair(ours: str | None, published: str | None) -> str:
    return f"{ours or '-'} | {published or '-'}"


def _present(spec: ModelSpec) -> bool | None:
    if spec.weights is None:
        return None
    from vidcls.weights import is_present

    return is_present(spec.weights)


def _print_table(known: Registry) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in HEADINGS:
        right = heading in ("frames", "top-1", "params", "GMACs")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "name")
    for spec in known.values():
        style = "bold" if spec.name == known.default else None
        table.add_row(*cells(spec), style=style)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{len(known)} models; default: {known.default or 'none'}. `vidcls models NAME` shows one whole."
    )


def _whole(spec: ModelSpec, default: bool) -> str:
    import yaml

    data = {key: value for key, value in entry(spec).items() if value not in (None, {}, [])}
    data["input"] = {key: value for key, value in data["input"].items() if value is not None}
    data["published"] = {key: value for key, value in data["published"].items() if value is not None}
    if default:
        data["default"] = True
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    return text.rstrip("\n")
