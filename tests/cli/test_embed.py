"""`vidcls embed`: the pipeline of `vidcls score`, with vectors in place of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq

from tests.cli.in_process import run_cli
from tests.clips import make_clip
from vidcls.inference.load import load


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    for number in range(4):
        make_clip(folder / f"{number}.mp4", 40 + 10 * number, size=(48, 64))
    (folder / "broken.mp4").write_text("no video")
    return folder


def table(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def test_parquet_has_a_vector_of_fixed_length_for_each_clip(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips.parquet"
    done = run_cli("embed", str(clips), "-o", str(out))
    assert done.returncode == 1
    assert "1 failed: " in done.stderr
    file = pq.ParquetFile(out)
    assert str(file.schema_arrow.field("vector").type) == "fixed_size_list<element: float>[128]"
    metadata = file.schema_arrow.metadata
    assert (metadata[b"dimension"], metadata[b"layer"], metadata[b"model"]) == (
        b"128",
        b"head",
        b"camera-motion",
    )
    settings = json.loads(metadata[b"vidcls"])
    assert len(settings["weights_sha256"]) == 64
    rows = {Path(row["path"]).name: row for row in table(out)}
    assert len(rows) == 5
    assert rows["broken.mp4"]["vector"] == [None] * 128
    with load("camera-motion", device="cpu") as model:
        for number in range(4):
            row = rows[f"{number}.mp4"]
            assert row["error"] is None
            assert (row["view"], row["begin"]) == (None, 0.0)
            vector = model.embed(clips / f"{number}.mp4").vector
            np.testing.assert_allclose(row["vector"], vector, atol=1e-4)


def test_a_run_resumes_and_its_settings_are_held_to(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips.parquet"
    run_cli("embed", str(clips / "0.mp4"), "-o", str(out))
    again = run_cli("embed", str(clips), "-o", str(out))
    assert "1 had been embedded before" in again.stderr
    assert len(table(out)) == 5
    other = run_cli("embed", str(clips), "-o", str(out), "--layer", "mean")
    assert other.returncode == 2
    assert "different settings" in other.stderr
    assert "layer was head, is mean" in other.stderr


@pytest.mark.parametrize(("per", "rows"), [("view", 4), ("frame", 32)])
def test_views_and_frames_have_rows_of_their_own(clips: Path, tmp_path: Path, per: str, rows: int) -> None:
    for layer in ("head", "mean"):
        out = tmp_path / f"{layer}.parquet"
        run_cli("embed", str(clips / "3.mp4"), "-o", str(out), "--per", per, "--layer", layer)
        found = table(out)
        assert len(found) == rows
        assert [row["view"] for row in found] == sorted(row["view"] for row in found)
        assert all(0 <= row["begin"] <= row["end"] <= row["duration"] for row in found)
    steps = [row["begin"] for row in found if row["view"] == 0]
    assert steps == sorted(steps)


def test_npz_has_the_same(clips: Path, tmp_path: Path) -> None:
    run_cli("embed", str(clips), "-o", str(tmp_path / "a.npz"), "--per", "view")
    run_cli("embed", str(clips), "-o", str(tmp_path / "a.parquet"), "--per", "view")
    with np.load(tmp_path / "a.npz") as archive:
        found = dict(archive)
    rows = [row for row in table(tmp_path / "a.parquet") if row["error"] is None]
    order = {(row["path"], row["view"]): np.array(row["vector"]) for row in rows}
    assert found["vectors"].shape == (16, 128)
    assert found["vectors"].dtype == np.float32
    for path, view, vector in zip(found["path"], found["view"], found["vectors"], strict=True):
        np.testing.assert_allclose(order[str(path), int(view)], vector, atol=1e-5)
    assert [Path(name).name for name in found["failed"]] == ["broken.mp4"]
    assert json.loads(str(found["settings"]))["dimension"] == 128


def test_shards_are_merged(clips: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"{number}.parquet" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        run_cli("embed", str(clips), "-o", str(part), "--shard", f"{number}/2", "--per", "view")
    whole = tmp_path / "whole.parquet"
    done = run_cli("merge", "-o", str(whole), *map(str, parts))
    assert done.returncode == 0, done.stderr
    assert len(table(whole)) == 17
    run_cli("embed", str(clips), "-o", str(tmp_path / "at-once.parquet"), "--per", "view")
    key = lambda row: (row["path"], row["view"] or 0)  # noqa: E731
    once, joined = (sorted(table(path), key=key) for path in (tmp_path / "at-once.parquet", whole))
    for a, b in zip(once, joined, strict=True):
        assert (a["path"], a["view"], a["begin"], a["error"]) == (
            b["path"],
            b["view"],
            b["begin"],
            b["error"],
        )
        if a["error"] is None:
            np.testing.assert_allclose(a["vector"], b["vector"], atol=1e-5)


def test_columns_of_a_manifest_come_along(clips: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,camera\n{clips}/0.mp4,left\n")
    run_cli("embed", str(manifest), "-o", str(tmp_path / "a.parquet"))
    assert table(tmp_path / "a.parquet")[0]["camera"] == "left"
    manifest.write_text(f"path,vector\n{clips}/0.mp4,left\n")
    done = run_cli("embed", str(manifest), "-o", str(tmp_path / "b.parquet"))
    assert done.returncode == 2
    assert "names (vector)" in done.stderr


def test_what_cannot_be_embedded_is_a_sentence(clips: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "a.parquet")
    for arguments, text in (
        (("--layer", "cls"), "--layer: vivit-fe has no class token; use --layer head or --layer mean"),
        (("--layer", "hed"), "did you mean 'head'?"),
        (("--engine", "openvino"), "--engine: openvino gives logits only; use --engine eager to embed"),
    ):
        done = run_cli("embed", str(clips / "0.mp4"), "-o", out, *arguments)
        assert done.returncode in (2, 3)
        assert text in done.stderr.replace("\n", " ")
    assert "end its name in .parquet or .npz" in run_cli("embed", str(clips), "-o", "a.csv").stderr


def test_the_end_counts_clips_that_have_a_vector(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = run_cli("embed", str(tmp_path / "none"), "-o", str(tmp_path / "none.npz"))
    assert "0 clips embedded; " in done.stderr
    assert "none.npz has the vectors of 0 clips\n" in done.stderr
    for per, again in (("clip", "0 clips embedded, 5"), ("view", "4 clips embedded")):
        out = tmp_path / f"{per}.npz"
        if per == "clip":
            run_cli("embed", str(clips), "-o", str(out))
        done = run_cli("embed", str(clips), "-o", str(out), "--per", per)
        assert again in done.stderr
        assert f"{per}.npz has the vectors of 4 clips\n" in done.stderr
