"""``vidcls search``: nearest clips and near duplicates in files of vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import keywords
from vidcls.errors import UsageError, counted, printable

if TYPE_CHECKING:
    from vidcls.search.cosine import Hit
    from vidcls.search.vectors import VectorFile


def search(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="[QUERY] FILE...",
            help="A clip or picture, and the .parquet or .npz files of `vidcls embed` to search; files alone with "
            "--duplicates.",
        ),
    ],
    model: o.ModelOptions,
    machine: o.MachineOptions,
    top_k: Annotated[int, Option("--top-k", "-k", min=1, max=100_000, help="Number of clips to find.")] = 10,
    duplicates: Annotated[
        float | None,
        Option(
            min=0.0, max=1.0, metavar="COSINE", help="List groups of clips that are at least this similar."
        ),
    ] = None,
    html: Annotated[
        Path | None, Option(metavar="FILE", help="Write the results as a page with pictures.")
    ] = None,
    json: o.JsonOption = False,
    overwrite: o.OverwriteOption = False,
    quiet: o.QuietOption = False,
) -> int:
    """Find the clips nearest to a clip, or near duplicates, in the vectors that `vidcls embed` wrote.

    The comparison is exact (cosine similarity) and reads the files in blocks. A clip that is already in the files is
    not embedded again.

    Examples:
    - `vidcls search query.mp4 clips.parquet -k 10`
    - `vidcls search clips.parquet --duplicates 0.98`
    """
    if duplicates is not None:
        return _duplicates(source, duplicates, json, quiet, html)
    if len(source) < 2:
        raise UsageError("FILE", "is missing", "name a clip, and the files of vectors to search")
    from vidcls.output.progress import ProgressBar
    from vidcls.output.sinks import check_absent
    from vidcls.search.cosine import nearest
    from vidcls.search.query import query_vector
    from vidcls.search.vectors import open_vectors

    if html is not None:
        check_absent(html, overwrite)
    files = open_vectors(source[1:])
    load = keywords(model, machine)
    del load["labels"]
    vector = query_vector(source[0], files, load)
    with ProgressBar("searching", unit="vectors", shown=not quiet) as bar:
        hits = nearest(vector, files, top_k, bar.update)
    _print_hits(hits, json)
    if html is not None:
        _write_page(html, source[0], hits, machine, quiet)
    return 0


def _print_hits(hits: Sequence[Hit], as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                [{"rank": n, "score": hit.score, **asdict(hit.place)} for n, hit in enumerate(hits, 1)],
                indent=2,
            )
        )
        return
    from vidcls.search.page import when

    for hit in hits:
        more = when(hit.place)
        print(f"{hit.score:.4f}  {printable(hit.place.path)}" + (f"  ({more})" if more else ""))


def _write_page(path: Path, query: str, hits: Sequence[Hit], machine: o.MachineOptions, quiet: bool) -> None:
    from vidcls.output.files import save_as
    from vidcls.search.page import page
    from vidcls.video.reader import VideoReader

    with VideoReader(machine.decoder, machine.decode_timeout) as reader:
        text = page(query, hits, reader)
    save_as(path, {suffix: lambda file: file.write(text.encode()) for suffix in (".html", ".htm")})
    if not quiet:
        print_message(f"vidcls: wrote {path}")


def _duplicates(source: list[str], threshold: float, as_json: bool, quiet: bool, html: Path | None) -> int:
    from vidcls.output.progress import ProgressBar
    from vidcls.search.cosine import duplicates
    from vidcls.search.vectors import open_vectors

    if html is not None:
        raise UsageError("html", "is not for duplicates", "leave it out, or use --json")
    files: list[VectorFile] = open_vectors(source)
    with ProgressBar("comparing", unit="vectors", shown=not quiet) as bar:
        groups = duplicates(files, threshold, bar.update)
    if as_json:
        found: list[Any] = [[asdict(member) for member in group] for group in groups]
        print(json.dumps(found, indent=2))
        return 0
    for number, group in enumerate(groups):
        print(*([""] if number else []), *(f"{m.score:.4f}  {printable(m.path)}" for m in group), sep="\n")
    if not quiet:
        clips = sum(map(len, groups))
        print_message(
            f"vidcls: {counted(len(groups), 'group')} of near duplicates, {counted(clips, 'clip')} in them"
        )
    return 0
