"""Label lists as people have them: understood, or one line that says what was expected and how to force it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidcls.errors import UsageError
from vidcls.training import setup
from vidcls.training.data.classes import class_ids, describe_classes, make_classes, unknown_labels
from vidcls.training.data.forms import FORMS, is_number
from vidcls.training.data.listing import Listing, find_problems, read_listing
from vidcls.training.data.sets import load_data
from vidcls.training.recipe import Recipe
from vidcls.training.splitting import source_numbers


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def pairs(listing: Listing) -> list[tuple[str, str]]:
    assert not listing.problems
    root = Path(listing.source).parent
    return [(Path(s.path).relative_to(root).as_posix(), s.labels[0]) for s in listing.samples]


@pytest.mark.parametrize(
    "names", [["2019", "2020"], ["01", "02"], ["0", "1"], ["²", "³"], ["١", "٢"], ["9" * 200, "1"]]
)
def test_d20_names_of_folders_are_names(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path / name / "a.mp4", "x")
    found = read_listing(tmp_path)
    classes = make_classes(found)
    assert classes == (tuple(sorted(names)),)
    assert class_ids(found, classes) == [(0,), (1,)]
    # … also where the model's classes are others: a folder 1 is not the second of them.
    assert len(unknown_labels(found, [["run", "walk"]])) == len(names)
    assert not unknown_labels(found, [[*sorted(names), "more"]])


@pytest.mark.parametrize("label", ["²", "٣", "9" * 5000, "01", "1.5", "-1"])
def test_d20_what_only_looks_like_a_number_is_a_name(tmp_path: Path, label: str) -> None:
    found = read_listing(write(tmp_path / "l.csv", f"a.mp4,{label}\nb.mp4,7\n"))
    assert not is_number(label)
    assert make_classes(found) == (tuple(sorted([label, "7"])),)
    assert unknown_labels(found, [["a"] * 3])


def test_d20_years_are_not_taken_for_ids(tmp_path: Path) -> None:
    found = read_listing(write(tmp_path / "l.csv", "a.mp4,2019\nb.mp4,2020\n"))
    with pytest.raises(UsageError, match=r"numbers up to 2020, but only 2 of them occur; .*labels=FILE"):
        make_classes(found)


UCF = ["ApplyEyeMakeup", "ApplyLipstick", "Archery"]


@pytest.mark.parametrize("class_file", [True, False])
def test_d20_ucf101_counts_from_1(tmp_path: Path, class_file: bool) -> None:
    if class_file:
        write(tmp_path / "classInd.txt", "".join(f"{i} {name}\r\n" for i, name in enumerate(UCF, 1)))
    lines = [f"{name}/v_{name}_g0{i}_c01.avi {i}" for i, name in enumerate(UCF, 1)]
    train = read_listing(write(tmp_path / "trainlist01.txt", "\r\n".join(lines) + "\r\n"))
    assert pairs(train) == [(line.split()[0], name) for line, name in zip(lines, UCF, strict=True)]
    assert make_classes(train) == (tuple(UCF),)
    assert any("classes are called" in note for note in train.notes)
    # The test list has no labels; its folders are called like the classes.
    paths = [f"{name}/v_{name}_g09_c01.avi" for name in reversed(UCF)]
    test = read_listing(write(tmp_path / "testlist01.txt", "\n".join(paths) + "\n"))
    assert pairs(test) == list(zip(paths, reversed(UCF), strict=True))
    assert not unknown_labels(test, [UCF])
    assert class_ids(test, [UCF]) == [(2,), (1,), (0,)]


def test_d20_numbers_from_1_without_any_names_are_doubted(tmp_path: Path) -> None:
    found = read_listing(write(tmp_path / "l.txt", "a.mp4 1\nb.mp4 2\n"))
    assert any("no clip has the label 0" in note for note in found.notes)


def hmdb(folder: Path, split: int = 1) -> None:
    for name in ("brush_hair", "wave"):
        lines = [f"{name}_{i}.avi {(i + split) % 3} \n" for i in range(6)]
        write(folder / f"{name}_test_split{split}.txt", "".join(lines))


def test_d20_hmdb51(tmp_path: Path) -> None:
    hmdb(tmp_path / "splits")
    hmdb(tmp_path / "splits", 2)
    clip = write(tmp_path / "clips" / "wave" / "wave_0.avi", "x")
    train = read_listing(tmp_path / "splits", str(tmp_path / "clips"))
    assert make_classes(train) == (("brush_hair", "wave"),)
    assert str(clip) in [s.path for s in train.samples]
    assert sorted(Path(s.path).name for s in train.samples) == [
        "brush_hair_0.avi", "brush_hair_3.avi", "wave_0.avi", "wave_3.avi",
    ]  # fmt: skip
    test = read_listing(tmp_path / "splits", part="test")
    assert {Path(s.path).name for s in test.samples} == {
        "brush_hair_1.avi", "brush_hair_4.avi", "wave_1.avi", "wave_4.avi",
    }  # fmt: skip
    second = read_listing(tmp_path / "splits" / "*_test_split2.txt")
    assert {Path(s.path).name for s in second.samples} == {
        "brush_hair_2.avi", "brush_hair_5.avi", "wave_2.avi", "wave_5.avi",
    }  # fmt: skip
    assert second.notes == [
        f"{tmp_path / 'splits' / '*_test_split2.txt'}: split2 of HMDB-51, its training clips"
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("some/a.mp4 0\nsome/b c.mp4 1\n", [("some/a.mp4", "0"), ("some/b c.mp4", "1")]),
        ("a,b.mp4 0\nc;d.mp4 1\n", [("a,b.mp4", "0"), ("c;d.mp4", "1")]),
        ("dir/a 163 0\ndir/b 122 1\n", [("dir/a", "0"), ("dir/b", "1")]),
        ("a.mp4 163 0\nb.mp4 122 1\n", [("a.mp4", "0"), ("b.mp4", "1")]),
        ("a.mp4 pan left\nb.mp4 static\n", [("a.mp4", "pan left"), ("b.mp4", "static")]),
        ("a.mp4;pan, left\nb.mp4;static\n", [("a.mp4", "pan, left"), ("b.mp4", "static")]),
        ("a.mp4|x\nb.mp4|y\n", [("a.mp4", "x"), ("b.mp4", "y")]),
        ("path;label\na.mp4;x\nb.mp4;y\n", [("a.mp4", "x"), ("b.mp4", "y")]),
        ("file_name,label\na.mp4,x\nb.mp4,y z\n", [("a.mp4", "x"), ("b.mp4", "y z")]),
        ('"label";"video"\n"x";"a.mp4"\n', [("a.mp4", "x")]),
        ("a.mp4\tx y\nb.mp4\tz,w\n", [("a.mp4", "x y"), ("b.mp4", "z,w")]),
        ("sub\\a.mp4,x\n", [("sub/a.mp4", "x")]),
        ("a.mp4,line\u2028break\n", [("a.mp4", "line\u2028break")]),
    ],
)
def test_d20_lists_of_other_programs(tmp_path: Path, text: str, found: list[tuple[str, str]]) -> None:
    assert pairs(read_listing(write(tmp_path / "train.txt", text))) == found


def test_d20_a_folder_of_hugging_face(tmp_path: Path) -> None:
    write(tmp_path / "set" / "metadata.csv", "file_name,label\nsub/a.mp4,x\nsub/b.mp4,y\n")
    write(tmp_path / "set" / "sub" / "a.mp4", "x")
    found = read_listing(tmp_path / "set")
    assert [s.labels for s in found.samples] == [("x",), ("y",)]
    assert found.notes == ["metadata.csv: line 1 is read as column names: file_name, label"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a.mp4 1 4 9\nb.mp4 2\n", r"1 or 3 numbers after a path, 1 expected; one label a clip"),
        (
            "a.mp4\nb.mp4\n",
            r"'a\.mp4' is not a path and a label; expected path,label or one of labels_format=csv",
        ),
        ("hello\nworld\n", r"is not a path and a label; .*another separator: delimiter=';'"),
        ("name,thing\nfoo,bar\n", r"the columns are called 'name', 'thing'; call them path,label"),
    ],
)
def test_d20_what_is_not_understood_says_what_was_expected(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_listing(write(tmp_path / "l.txt", text))


def test_d20_forms_and_delimiters_can_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path / "l.txt", "a.mp4 163 0\nb.mp4 122 1\n")
    assert pairs(read_listing(path, labels_format="frames")) == [("a.mp4", "0"), ("b.mp4", "1")]
    assert pairs(read_listing(path, labels_format="space")) == [("a.mp4", "163 0"), ("b.mp4", "122 1")]
    assert read_listing(path, heads=("n", "label")).samples[0].labels == ("163", "0")
    path = write(tmp_path / "m.txt", "a.mp4:x,y\nb.mp4:z\n")
    assert pairs(read_listing(path, delimiter=":")) == [("a.mp4", "x,y"), ("b.mp4", "z")]
    path = write(tmp_path / "n.txt", "x/a.mp4\ny/b.mp4\n")
    assert pairs(read_listing(path, labels_format="folder")) == [("x/a.mp4", "x"), ("y/b.mp4", "y")]
    for form, delimiter in (("csf", None), (None, ";;"), (None, '"')):
        with pytest.raises(UsageError, match=r"did you mean 'csv'|is not one character"):
            read_listing(path, labels_format=form, delimiter=delimiter)


def test_d20_folders_of_sets_are_not_classes(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write(tmp_path / name / "run" / "a.mp4", "x")
    with pytest.raises(UsageError, match=r"its folders \(train, val\) are sets of clips rather than classes"):
        read_listing(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_b10_a_loop_in_a_class_costs_no_clip(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name / "1.mp4", "x")
        (tmp_path / name / "0.mp4").symlink_to("0.mp4")
    found = read_listing(tmp_path)
    assert len(found.samples) == 4
    problems, missing = find_problems(found)
    assert not problems
    assert [Path(s.path).name for s in missing] == ["0.mp4", "0.mp4"]


def test_d21_a_single_class_is_refused(tmp_path: Path, recipe: Any) -> None:
    clip = write(tmp_path / "clips" / "run" / "a.mp4", "x")
    assert clip.exists()
    plan = recipe(data=str(tmp_path / "clips"))
    with pytest.raises(
        UsageError, match="all clips are of one class, 'run'; give clips of two classes or more"
    ):
        load_data(plan, setup.find_model(plan))


def test_d21_the_classes_are_shown_with_ids_and_counts(folder: Path, recipe: Any, tmp_path: Path) -> None:
    val = write(
        tmp_path / "val.csv", f"{next(folder.rglob('*.mp4'))},{next(folder.rglob('*.mp4')).parent.name}\n"
    )
    plan = recipe(data=str(folder), val=str(val))
    rows = [line.split("\t") for line in load_data(plan, setup.find_model(plan)).table()]
    assert rows[0] == ["id", "train", "val", "label"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [
        [str(i), "4", name] for i, name in enumerate(("down", "left", "right"))
    ]
    assert sum(int(row[2]) for row in rows[1:]) == 1
    assert describe_classes([["a\x1b[31m"]], {"train": [(0,)]})[1] == "0\t1\ta\\x1b[31m"


def test_videos_without_class_folders_are_told_apart_from_an_empty_folder(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="4 videos but no class folders; make one folder per class, or list"):
        read_listing(folder / "left")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="names no clips"):
        read_listing(tmp_path / "empty")
    write(tmp_path / "set" / "run" / "a.mp4", "x")
    write(tmp_path / "set" / "b.mp4", "x")
    assert "1 video beside the class folders left out" in read_listing(tmp_path / "set").notes[0]


def test_a_video_is_not_read_as_a_list(tmp_path: Path) -> None:
    for name, text in (("a.mp4", "x\n"), ("b.MKV", "c.mp4,run\n")):
        with pytest.raises(UsageError, match="is a video, not a list or folder of labeled clips; give a CSV"):
            read_listing(write(tmp_path / name, text))


def test_skipping_is_not_recommended_to_who_skips(folder: Path, recipe: Any, tmp_path: Path) -> None:
    clip = next(folder.rglob("*.mp4"))
    listed = write(tmp_path / "l.csv", f"{clip},left\n{clip},down\ngone.mp4,left\n")
    for skip in (False, True):
        plan = recipe(data=str(listed), val="none", skip_missing=skip)
        with pytest.raises(UsageError) as error:
            load_data(plan, setup.find_model(plan))
        assert ("skip_missing" in str(error.value), "file is missing" in str(error.value)) == (not skip,) * 2
        assert "1 mistake; fix the list:\n  l.csv:2: " in str(error.value).replace(
            "fix the list, or leave missing clips out with skip_missing=True", "fix the list"
        )


def test_d21_check_prints_the_classes_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    out = tmp_path / "run"
    words = [
        "train",
        "--data",
        str(folder),
        "-o",
        str(out),
        "--model",
        "vivit-fe-tiny",
        "--init-from",
        "none",
        "--val",
        "none",
    ]
    done = CliRunner().invoke(app, [*words, "--check", "-q"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "id\ttrain\tlabel\n0\t4\tdown\n1\t4\tleft\n2\t4\tright\n"
    assert not out.exists()
    wrong = CliRunner().invoke(app, [*words, "--check", "--labels-format", "csf"])
    assert wrong.exit_code == 2
    assert "did you mean 'csv'" in wrong.stderr
    wrong = CliRunner().invoke(app, [*words, "--check", "--delimiter", ";;"])
    assert wrong.stderr.startswith("vidcls: --delimiter: ';;' is not one character")


ALPHABET = st.sampled_from(
    [*"ab/\\.,;|\t \"'01²#-\r\u2028\x85é", ".mp4", "path", "label", "youtube_id", "\n"]
)
SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(
    text=st.lists(ALPHABET, max_size=60).map("".join) | st.text(max_size=120),
    form=st.sampled_from([None, *FORMS]),
    delimiter=st.sampled_from([None, ",", ";", " ", "é"]),
    heads=st.sampled_from([("label",), ("verb", "noun")]),
)
def test_fuzz_lists(
    tmp_path_factory: pytest.TempPathFactory, text: str, form: str | None, delimiter: str | None, heads: Any
) -> None:
    """Any text: a usage error of one line, or samples with a path and a label for each head, and line numbers."""
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        found = read_listing(path, heads=heads, labels_format=form, delimiter=delimiter)
        classes = make_classes(found) if found.samples else ()
    except UsageError:
        return
    for sample in found.samples:
        assert len(sample.labels) == len(heads)
        assert all(sample.labels)
        assert 1 <= int(sample.origin.rpartition(":")[2]) <= len(re.split("\r\n|\r|\n", text))
    if found.samples:
        assert all(None not in ids for ids in class_ids(found, classes))
    find_problems(found, check_files=False)


@pytest.mark.parametrize("names", ["start,end", "time_start,time_end", "start_time,end_time"])
def test_parts_of_longer_videos(tmp_path: Path, names: str) -> None:
    (tmp_path / "game.mp4").write_bytes(b"x")
    table = write(tmp_path / "l.csv", f"path,label,{names}\ngame.mp4,run,1.5,3\ngame.mp4,jump,1:00,\n")
    found = read_listing(table)
    game = tmp_path / "game.mp4"
    assert [(s.path, s.labels) for s in found.samples] == [
        (f"{game}#t=1.5,3", ("run",)),
        (f"{game}#t=60", ("jump",)),
    ]
    assert find_problems(found) == ([], [])
    assert any("clips are parts of videos" in note for note in found.notes)
    # Parts of one video are of one source.
    assert source_numbers(found.samples).tolist() == [0, 0]
    wrong = read_listing(write(tmp_path / "w.csv", f"path,label,{names}\na.mp4,run,3,2\nb.mp4,run,x,\n"))
    assert [problem.partition(": ")[2] for problem in wrong.problems] == [
        "the part ends at 2 and starts at 3",
        "'x' is not a time in seconds or h:m:s",
    ]


def loaded(data: Path, **changes: Any) -> Any:
    recipe = Recipe.model_validate({"model": "vivit-fe-tiny", "data": str(data), **changes})
    return load_data(recipe, setup.find_model(recipe))


@pytest.mark.parametrize(
    ("names", "rows", "classes"),
    [
        ("jump\nrun\n", "a.mp4,0\nb.mp4,1\n", ("jump", "run")),
        ("0 jump\n1 run\n", "a.mp4,0\nb.mp4,1\n", ("jump", "run")),
        ("jump\nrun\nswim\n", "a.mp4,0\nb.mp4,1\n", ("jump", "run", "swim")),
        ("jump\nrun\n", "a.mp4,1\nb.mp4,2\n", ("0", "1", "2")),  # they count from 1
        ("jump\nrun\nswim\n", "a.mp4,1\nb.mp4,2\n", ("0", "1", "2")),  # and here they may
        ("jump\n", "a.mp4,0\nb.mp4,1\n", ("0", "1")),
        ("jump\nrun\n", "a.mp4,x\nb.mp4,y\n", ("x", "y")),
    ],
)
def test_a_file_beside_the_list_names_its_numbers_where_that_is_sure(
    tmp_path: Path, names: str, rows: str, classes: tuple[str, ...]
) -> None:
    for name in ("a.mp4", "b.mp4", "classes.txt"):
        write(tmp_path / name, names)
    found = loaded(write(tmp_path / "l.csv", rows), val="none")
    assert found.classes == (classes,)
    assert (found.train[1] == [(0,), (1,)]) == (classes[0] != "0" or "a.mp4,0" in rows)
    assert any("called as in classes.txt" in note for note in found.notes) == ("jump" in classes)


def test_negative_numbers_are_refused_as_ids(tmp_path: Path) -> None:
    listing = read_listing(write(tmp_path / "l.csv", "a.mp4,-1\nb.mp4,1\nc.mp4,-1\n"))
    assert find_problems(listing, check_files=False)[0] == [
        "label -1 (2 clips): class ids count from 0; leave clips without a label out"
    ]
    listing = read_listing(write(tmp_path / "l.csv", "a.mp4,-1\nb.mp4,run\n"))
    assert not find_problems(listing, check_files=False)[0]


def test_sources_on_both_sides_and_repeated_rows_are_said(tmp_path: Path) -> None:
    for name in ("v_Run_g01_c01", "v_Run_g01_c02", "v_Run_g02_c01", "v_Jump_g01_c01", "v_Jump_g02_c01"):
        write(tmp_path / f"{name}.avi", "x")
    train = write(
        tmp_path / "train.csv", "v_Run_g01_c01.avi,run\nv_Run_g01_c01.avi,run\nv_Jump_g01_c01.avi,jump\n"
    )
    val = write(tmp_path / "val.csv", "v_Run_g01_c02.avi,run\nv_Jump_g02_c01.avi,jump\n")
    notes = loaded(train, val=str(val)).notes
    assert any(note.startswith("1 rows repeat a clip with the same label") for note in notes)
    assert any(
        note.startswith("1 of 2 validation clips are of sources that are trained on too") for note in notes
    )
    clean = write(tmp_path / "clean.csv", "v_Run_g02_c01.avi,run\nv_Jump_g02_c01.avi,jump\n")
    assert not any("sources" in note for note in loaded(train, val=str(clean)).notes)
