"""Rows of figures → a table for people, JSON for programs, a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidcls.output.plots import new_figure, save_figure
from vidcls.output.sinks import writing
from vidcls.paths import write_text

Row = dict[str, Any]
HEADINGS = (
    *("model", "engine", "precision", "batch", "median s", "p90 s", "±", "views/s", "clips/s", "videos/h"),
    *("GFLOP/s", "of peak", "memory", "error", "params", "GMACs", "top-1 (published)"),
)
TEXTS = ("model", "engine", "precision", "decoder", "run", "notes")
# What a narrow terminal goes without, in this order; most follows from the columns that stay.
DISPENSABLE = (
    *("params", "GMACs", "top-1 (published)", "of peak", "GFLOP/s", "p90 s", "videos/h", "notes", "batch"),
    *("views/s", "±", "of", "processor s"),
)


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as text; the published figures stand behind ours, with a bar between."""
    share = row.get("merge_tokens")
    head = (row["model"], f"{row['engine']}, merging {share:g}" if share else row["engine"], row["precision"])
    if row["failed"]:
        return (*head, *("-" for _ in HEADINGS[3:]))
    seconds, published = row["seconds"], row["published"]
    share, memory = row["share_of_peak"], row["peak_memory"]
    params = f"{row['params'] / 1e6:.1f}M"
    gmacs = f"{row['gmacs']:.4g}"
    return (
        *head,
        str(row["batch"]),
        f"{seconds['median']:.4g}",
        f"{seconds['p90']:.4g}",
        f"{100 * seconds['spread']:.0f} %",
        f"{row['views_per_second']:.3g}",
        f"{row['clips_per_second']:.3g}",
        f"{row['videos_per_hour']:.0f}",
        f"{row['gflops_per_second']:.0f}",
        "-" if share is None else f"{100 * share:.0f} %",
        "-" if memory is None else f"{memory / 2**20:.0f} MiB",
        f"{row['error']:.1g}",
        params if "params" not in published else f"{params} | {published['params'] / 1e6:.1f}M",
        gmacs if "gmacs" not in published else f"{gmacs} | {published['gmacs']:.4g}",
        "-" if "top1" not in published else f"{published['top1']:.1f}",
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """Return what the reader needs to understand the rows, one line each."""
    lines = []
    random = sorted({row["model"] for row in rows if row.get("weights") == "random"})
    if random:
        lines.append(f"random weights: {', '.join(random)}")
    if any(row.get("calibrated_on") == "noise" for row in rows):
        lines.append(
            "int8 was calibrated on noise: its error says little; `vidcls export --precision int8` calibrates on clips"
        )
    for row in rows:
        units = row.get("units")
        if units and units["of_views"] > units["encoded"]:
            saved = 1 - units["encoded"] / units["of_views"]
            line = (
                f"{row['model']}: of the {units['of_views']} frames or tubelets in a ten-second clip's views "
                f"{units['encoded']} are different and encoded ({100 * saved:.0f} % saved)"
            )
            lines += [] if line in lines else [line]
    lines += _merging(rows)
    ours = {(r["model"], r["batch"]): r for r in rows if r["engine"] == "transformers" and not r["failed"]}
    for row in rows:
        base = ours.get((row["model"], row.get("batch")))
        if base is not None and row is not base and not row["failed"]:
            ratio = base["seconds"]["median"] / row["seconds"]["median"]
            lines.append(
                f"{row['model']}: {row['engine']} {row['precision']}, batch {row['batch']}: {ratio:.2f} × as fast "
                "as transformers fp32"
            )
    lines += [f"{r['model']}: {r['engine']} {r['precision']}: {r['failed']}" for r in rows if r["failed"]]
    return lines


def _merging(rows: Sequence[Row]) -> list[str]:
    """What merging tokens gained and changed, against the same engine without it."""
    kind = ("model", "engine", "precision", "batch")
    done = [row for row in rows if not row["failed"]]
    whole = {tuple(row[key] for key in kind): row for row in done if not row.get("merge_tokens")}
    lines = []
    for row in done:
        base = whole.get(tuple(row[key] for key in kind))
        if row.get("merge_tokens") and base is not None:
            ratio = base["seconds"]["median"] / row["seconds"]["median"]
            lines.append(
                f"{row['model']}: {row['engine']} {row['precision']}, batch {row['batch']}: merging "
                f"{row['merge_tokens']:g} of the tokens is {ratio:.2f} × as fast; logits change by {row['error']:.2g} "
                "at most (on noise)"
            )
    return lines


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], terminal: bool) -> list[str]:
    """Print rows to stdout: a table on a terminal, else tab-separated values.

    Returns:
        The columns that a terminal was too narrow for.
    """
    if terminal:
        from vidcls.output.terminal_table import print_columns

        return print_columns(headings, rows, left=TEXTS, dispensable=DISPENSABLE)
    for row in (headings, *rows):
        print("\t".join(row))
    return []


def write_json(path: Path, record: Row) -> None:
    """Write figures to a file, whole or not at all."""
    with writing(path):
        write_text(path, json.dumps(record, indent=2) + "\n")


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Plot published accuracy against measured speed where there is an accuracy, else speed alone.

    Raises:
        DependencyError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    figure = new_figure("plot", 8, 5)
    axes = figure.subplots()
    good = [row for row in rows if not row["failed"]]
    rated = [row for row in good if "top1" in row["published"]]
    if rated:
        for kind in sorted({(row["engine"], row["precision"]) for row in rated}):
            some = [row for row in rated if (row["engine"], row["precision"]) == kind]
            axes.scatter(
                [published_speed(row) for row in some],
                [row["published"]["top1"] for row in some],
                label=" ".join(kind),
            )
        for row in rated:
            place = (published_speed(row), row["published"]["top1"])
            axes.annotate(row["model"], place, (5, 3), textcoords="offset points", fontsize=7)
        axes.set(
            xscale="log",
            xlabel="videos per hour, measured, at the published views",
            ylabel="published top-1 in %",
        )
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)
        axes.legend()
    else:
        names = [f"{row['model']}, {row['engine']} {row['precision']}, batch {row['batch']}" for row in good]
        axes.barh(names, [row["views_per_second"] for row in good])
        axes.invert_yaxis()
        axes.set(xlabel="views per second")
    save_figure(figure, path)


def published_speed(row: Row) -> float:
    """Videos an hour with as many views as the published accuracy was measured with."""
    times = str(row["published"].get("views") or f"{row['views']}x{row['crops']}").split("x")
    per_clip = int(times[0]) * int(times[1]) / row.get("clips_per_view", 1)
    return float(3600 * row["views_per_second"] / per_clip)
