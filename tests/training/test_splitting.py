"""`vidcls split`: lists that `vidcls train` reads, stratified, grouped and reproducible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from vidcls.errors import UsageError
from vidcls.training.data.listing import read_listing
from vidcls.training.groups import source_of
from vidcls.training.splitting import write_split


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of ten sources with three clips each; nothing is decoded."""
    for label in ("run", "jump"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for source in range(10):
            for part in range(3):
                (tmp_path / "set" / label / f"game{source}-clip{part}.mp4").write_bytes(b"x")
    return tmp_path / "set"


def test_lists_are_stratified_grouped_and_whole(clips: Path, tmp_path: Path) -> None:
    found = write_split(str(clips), tmp_path / "lists", 0.2)
    train, val = (read_listing(str(path)).samples for path in (found.train, found.val))
    assert (len(train), len(val)) == found.sizes == (48, 12)
    assert found.groups == (16, 4)
    assert Counter(sample.labels for sample in val) == {("run",): 6, ("jump",): 6}
    assert not {source_of(s.path) for s in train} & {source_of(s.path) for s in val}
    assert {s.path for s in [*train, *val]} == {str(path) for path in clips.rglob("*.mp4")}


def test_the_same_seed_gives_the_same_lists(clips: Path, tmp_path: Path) -> None:
    texts = [
        write_split(str(clips), tmp_path / name, 0.3, seed=seed).val.read_text()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_column_says_which_clips_belong_together(clips: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name},{int(path.stem[4]) % 5}" for path in sorted(clips.rglob("*.mp4"))]
    (tmp_path / "list.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    found = write_split(str(tmp_path / "list.csv"), tmp_path / "lists", 0.2)
    assert found.groups == (4, 1)
    samples = read_listing(str(found.val)).samples
    assert len({int(Path(s.path).stem[4]) % 5 for s in samples}) == 1
    assert all(s.group == str(int(Path(s.path).stem[4]) % 5) for s in samples)


def test_by_clip_takes_no_heed_of_sources(clips: Path, tmp_path: Path) -> None:
    found = write_split(str(clips), tmp_path / "lists", 0.2, by="clip")
    train, val = (read_listing(str(path)).samples for path in (found.train, found.val))
    assert {source_of(s.path) for s in train} & {source_of(s.path) for s in val}


def test_lists_of_any_form_are_split(clips: Path, tmp_path: Path) -> None:
    """What training takes to read a list the command takes too, and its remedies name these options."""
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    rows = [f"{path.relative_to(clips)}:{path.parent.name}" for path in sorted(clips.rglob("*.mp4"))]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    words = ["split", str(tmp_path / "list.txt"), "-o", str(tmp_path / "lists")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--labels-format csv|space|" in refused.stderr
    assert "--delimiter ;" in refused.stderr
    done = CliRunner().invoke(app, [*words, "--delimiter", ":", "--videos", str(clips)])
    assert done.exit_code == 0, done.output
    assert {s.path for s in read_listing(tmp_path / "lists" / "val.csv").samples} <= {
        str(path) for path in clips.rglob("*.mp4")
    }


def test_lists_are_not_overwritten_unasked(clips: Path, tmp_path: Path) -> None:
    first = write_split(str(clips), tmp_path / "lists", 0.2).val.read_text()
    with pytest.raises(UsageError, match="exists already"):
        write_split(str(clips), tmp_path / "lists", 0.2, seed=1)
    assert (tmp_path / "lists" / "val.csv").read_text() == first
    write_split(str(clips), tmp_path / "lists", 0.2, seed=1, overwrite=True)
    assert (tmp_path / "lists" / "val.csv").read_text() != first


def test_mistakes_are_told_before_anything_is_written(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\ngone.mp4,run\n")
    with pytest.raises(UsageError, match=r"1 file is missing; fix the list:\n  list.csv:2: no such file"):
        write_split(str(tmp_path / "list.csv"), tmp_path / "lists", 0.2)
    one = next(clips.rglob("*.mp4"))
    (tmp_path / "one.csv").write_text(f"path,label\n{one},run\n")
    with pytest.raises(UsageError, match="cannot be split"):
        write_split(str(tmp_path / "one.csv"), tmp_path / "lists", 0.2)
    assert not (tmp_path / "lists").exists()


def test_the_command(clips: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    done = CliRunner().invoke(app, ["split", str(clips), "-o", str(tmp_path / "lists"), "--val", "0.1"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(tmp_path / "lists" / name) for name in ("train.csv", "val.csv")]
    assert "54 clips of 18 sources" in done.stderr
    again = CliRunner().invoke(app, ["split", str(clips), "-o", str(tmp_path / "lists")])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
