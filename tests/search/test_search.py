"""Nearest vectors and near duplicates, against what NumPy says of all at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from tests.cli.in_process import run_cli
from tests.clips import make_clip
from tests.search.made import write_vectors
from vidcls.errors import UsageError
from vidcls.search import vectors as vectors_module
from vidcls.search.cosine import duplicates, nearest
from vidcls.search.page import page
from vidcls.search.vectors import open_vectors, unit


def random_vectors(count: int, dimension: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_nearest_are_those_of_all_at_once(
    tmp_path: Path, suffix: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK_BYTES", block * 4 * 24)
    data = random_vectors(150)
    data[40] = data[17] * 3  # of another length, and as near
    parts: list[Any] = list(data)
    parts[60] = None  # a clip that failed
    files = [
        write_vectors(tmp_path / f"a.{suffix}", parts[:100], [f"{n}.mp4" for n in range(100)]),
        write_vectors(tmp_path / f"b.{suffix}", parts[100:], [f"{n}.mp4" for n in range(100, 150)]),
    ]
    query = data[17] + 0.1 * random_vectors(1, seed=1)[0]
    cosines = unit(data) @ unit(query[None])[0]
    cosines[60] = -2
    expected = np.argsort(-cosines, kind="stable")[:12]
    hits = nearest(query, open_vectors([str(file) for file in files]), 12)
    assert [hit.place.path for hit in hits[2:]] == [f"{n}.mp4" for n in expected[2:]]
    assert {hit.place.path for hit in hits[:2]} == {"17.mp4", "40.mp4"}
    np.testing.assert_allclose([hit.score for hit in hits], cosines[expected], atol=1e-6)
    assert {hit.file for hit in hits} <= {str(file) for file in files}
    assert len(nearest(query, open_vectors([str(files[1])]), 1000)) == 50


@pytest.mark.parametrize("block", [3, 1000])
def test_groups_of_duplicates_are_those_of_all_pairs(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK_BYTES", block * 4 * 24)
    data = random_vectors(60)
    near = 0.05 * random_vectors(60, seed=2)
    data[50] = data[4] + near[0]  # a chain
    data[31] = data[50] + near[1]
    data[59] = data[31] + near[2]
    data[20] = data[10] * 5
    file = write_vectors(tmp_path / "a.parquet", list(data))
    groups = duplicates(open_vectors([str(file)]), 0.98)
    cosines = unit(data) @ unit(data).T
    np.fill_diagonal(cosines, -1)
    joined = {frozenset((f"{a}.mp4", f"{b}.mp4")) for a, b in np.argwhere(cosines >= 0.98)}
    found = [[member.path for member in group] for group in groups]
    assert found == [["10.mp4", "20.mp4"], ["31.mp4", "4.mp4", "50.mp4", "59.mp4"]]
    assert all(any(pair <= set(group) for group in found) for pair in joined)
    for group in groups:
        for member in group:
            assert member.score == pytest.approx(cosines[int(member.path[:-4])].max(), abs=1e-6)
    assert duplicates(open_vectors([str(file)]), 1.1) == []


def test_views_of_one_clip_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    one, other = random_vectors(2)
    file = write_vectors(tmp_path / "a.parquet", [[one, one], [other, other]])
    assert duplicates(open_vectors([str(file)]), 0.9) == []
    file = write_vectors(tmp_path / "b.npz", [[one, other], [random_vectors(1, seed=5)[0], one]])
    assert [[m.path for m in group] for group in duplicates(open_vectors([str(file)]), 0.9)] == [
        ["0.mp4", "1.mp4"]
    ]


def test_what_has_no_direction_is_like_nothing(tmp_path: Path) -> None:
    strange = [np.zeros(3), np.full(3, np.nan), np.full(3, np.inf), np.array([1e-15, 0, 0]), np.ones(3)]
    file = write_vectors(tmp_path / "a.parquet", strange)
    hits = nearest(np.ones(3, np.float32), open_vectors([str(file)]), 5)
    assert hits[0].place.path == "4.mp4"
    assert all(np.isfinite(hit.score) for hit in hits)
    assert {hit.place.path for hit in hits if hit.score == 0} == {"0.mp4", "1.mp4", "2.mp4"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"layer": "mean"}, "layer mean and head"),
        ({"model": "other"}, "model other and camera-motion"),
        ({"weights_sha256": "1" * 64}, "weights_sha256 111111111111… and 000000000000…"),
    ],
)
def test_vectors_of_different_models_are_not_compared(tmp_path: Path, changes: Any, text: str) -> None:
    first = write_vectors(tmp_path / "a.parquet", random_vectors(3))
    second = write_vectors(tmp_path / "b.parquet", random_vectors(3), **changes)
    with pytest.raises(UsageError, match="cannot be compared") as caught:
        open_vectors([str(first), str(second)])
    assert text in str(caught.value)
    shorter = write_vectors(tmp_path / "c.parquet", random_vectors(3, 12))
    with pytest.raises(UsageError, match="dimension 12 and 24"):
        open_vectors([str(first), str(shorter)])


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = write_vectors(tmp_path / "good.npz", random_vectors(3)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[:-40])
    (tmp_path / "text.parquet").write_text("nothing of the sort")
    np.savez(tmp_path / "other.npz", vectors=np.zeros((2, 3)))
    pq.write_table(pa.table({"vector": [[1.0]], "path": ["a"]}), tmp_path / "other.parquet")
    for name in ("cut.npz", "text.parquet", "other.npz", "other.parquet"):
        with pytest.raises(UsageError, match="is not a file of vectors"):
            open_vectors([str(tmp_path / name)])
    with pytest.raises(UsageError, match="no such file"):
        open_vectors([str(tmp_path / "none.parquet")])


def test_hostile_files_are_refused_in_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = pq.read_table(write_vectors(tmp_path / "good.parquet", random_vectors(3)))
    metadata, arrays = (
        good.schema.metadata,
        dict(np.load(write_vectors(tmp_path / "good.npz", random_vectors(3)))),
    )
    settings = json.loads(metadata[b"vidcls"])
    tables = [good.drop(["vector"]), good.drop(["begin"]), good.set_column(0, "path", pa.array([1, 2, 3]))]
    tables += [
        good.replace_schema_metadata({**metadata, b"vidcls": json.dumps(one).encode()})
        for one in (
            [],
            1,
            None,
            {**settings, "layer": []},
            {**settings, "dimension": [1]},
            {**settings, "model": 3},
        )
    ]
    wrong = [{"path": np.array([1, 2, 3])}, {"view": np.array(["a"] * 3)}, {"begin": np.zeros(2)}]
    wrong += [{"settings": np.array("[]")}, {"vectors": np.zeros((3, 3, 1), np.float32)}]
    files = []
    for number, table in enumerate(tables):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(table, files[-1])
    for number, changes in enumerate(wrong):
        files.append(tmp_path / f"{number}.npz")
        np.savez(files[-1], **{**arrays, **changes})
    for file in files:
        for arguments in ((str(file), "--duplicates", "0"), ("0.mp4", str(file))):
            done = run_cli("search", *arguments)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), (file, done)
            assert "is not a file of vectors" in done.stderr


def test_a_file_of_vectors_leads_to_no_checkpoint(clips: Path, tmp_path: Path) -> None:
    for model in ("/etc/passwd", "https://example.org/x.safetensors", "hub:a/b", "timm:x"):
        file = write_vectors(tmp_path / "v.npz", random_vectors(3), model=model)
        done = run_cli("search", str(clips / "0.mp4"), str(file))
        assert done.returncode == 2
        assert "is not a model of the registry; pass --model NAME or --weights FILE" in done.stderr


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    for number, (frames, size) in enumerate([(40, (48, 64)), (60, (64, 48)), (50, (48, 48))]):
        make_clip(folder / f"{number}.mp4", frames, size=size)
    (folder / "copy.mp4").write_bytes((folder / "1.mp4").read_bytes())
    run_cli("embed", str(folder), "-o", str(folder / "clips.parquet"))
    return folder


def test_a_clip_is_found_by_its_copy_and_by_its_name(clips: Path, tmp_path: Path) -> None:
    stored = str(clips / "clips.parquet")
    elsewhere = tmp_path / "query.mp4"
    elsewhere.write_bytes((clips / "2.mp4").read_bytes())
    found = json.loads(run_cli("search", str(elsewhere), stored, "--json").stdout)
    assert found[0]["path"] == str(clips / "2.mp4")
    assert found[0]["score"] == pytest.approx(1, abs=1e-4)
    assert [hit["rank"] for hit in found] == [1, 2, 3, 4]
    (clips / "1.mp4").rename(clips / "moved")
    try:
        by_name = run_cli("search", str(clips / "1.mp4"), stored, "-k", "2").stdout.splitlines()
    finally:
        (clips / "moved").rename(clips / "1.mp4")
    assert len(by_name) == 2
    assert all(line.startswith("1.0000  ") for line in by_name)
    groups = json.loads(run_cli("search", stored, "--duplicates", "0.9999", "--json").stdout)
    assert [[Path(member["path"]).name for member in group] for group in groups] == [["1.mp4", "copy.mp4"]]


def test_a_query_of_another_model_is_refused(clips: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "query.mp4"
    elsewhere.write_bytes((clips / "2.mp4").read_bytes())
    arguments = ("search", str(elsewhere), str(clips / "clips.parquet"))
    other = run_cli(*arguments, "--random-weights", "--model", "camera-motion")
    assert other.returncode == 2
    assert "cannot be compared with those of this model (weights_sha256" in other.stderr
    for query, text in (
        (str(tmp_path / "none.mp4"), "is neither a file nor a clip in the vectors"),
        (str(clips / "clips.parquet.journal"), "journal"),
    ):
        done = run_cli("search", query, str(clips / "clips.parquet"))
        assert done.returncode in (1, 2)
        assert text in done.stderr
    assert run_cli("search", str(clips / "clips.parquet")).returncode == 2


def test_the_page_is_safe_and_has_pictures(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.html"
    done = run_cli("search", str(clips / "0.mp4"), str(clips / "clips.parquet"), "--html", str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<script" not in text
    assert (
        run_cli("search", str(clips / "0.mp4"), str(clips / "clips.parquet"), "--html", str(out)).returncode
        == 2
    )
    name = '<script>alert(1)</script>\x1b[31m" onerror="x.mp4'
    file = write_vectors(tmp_path / "a.parquet", random_vectors(1), [name])
    shown = page(name, nearest(random_vectors(1)[0], open_vectors([str(file)]), 1))
    assert "<script" not in shown
    assert 'onerror="' not in shown
    assert "\x1b" not in shown


def test_duckdb_reads_the_file_as_it_is(clips: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = str(clips / "clips.parquet").replace("'", "''")
    rows = duckdb.sql(f"SELECT path, len(vector) FROM '{path}' ORDER BY path").fetchall()
    assert [length for _, length in rows] == [128] * 4


def test_the_guides_query_for_duckdb_passes_over_failed_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb")
    import pyarrow as pa
    import pyarrow.parquet as pq

    guide = Path(__file__).parents[2] / "docs" / "embed.md"
    query = guide.read_text(encoding="utf-8").split("```sql\n")[1].split("```")[0]
    vectors = pa.array([[None, None], [1.0, 0.0], [0.6, 0.8]], pa.list_(pa.float32(), 2))
    names = [f"clips/{name}.mp4" for name in ("bad", "a", "b")]
    table = pa.table({"path": names, "vector": vectors, "error": ["clips/bad.mp4: broken", None, None]})
    pq.write_table(table, tmp_path / "clips.parquet")
    monkeypatch.chdir(tmp_path)
    rows = duckdb.sql(query).fetchall()
    assert [path for path, _ in rows] == names[1:]
    assert [score for _, score in rows] == pytest.approx([1.0, 0.6])


def test_searching_needs_no_torch_where_the_file_has_the_clip(clips: Path) -> None:
    import subprocess

    code = (
        "import sys; from vidcls.search.vectors import open_vectors; from vidcls.search.query import query_vector\n"
        f"files = open_vectors([{str(clips / 'clips.parquet')!r}])\n"
        f"query_vector({str(clips / '0.mp4')!r}, files, {{}}); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
