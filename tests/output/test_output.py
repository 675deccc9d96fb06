"""Rows become text that people and programs can read, and nothing that was computed is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vidcls.errors import OutputError, UsageError, printable
from vidcls.output.row import Layout
from vidcls.output.terminal import LinesWriter, TerminalWriter
from vidcls.output.writers import FORMATS, check_output, open_output

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def row(
    path: str = "clip.mp4", labels: tuple[str, ...] = ("pan left", "shake"), **changes: Any
) -> dict[str, Any]:
    scores = [0.75, 0.25, 0.0, 0.0]
    return {
        "path": path,
        "model": "camera-motion",
        "weights": "bundled:camera-motion.safetensors",
        "views": 4,
        "crops": 1,
        "frames": 32,
        "stride": 2,
        "fps": 29.97,
        "duration": 10.01,
        "decoder": "decord",
        "predictions": [
            {"rank": i, "index": i + 6, "label": label, "score": scores[i - 1]}
            for i, label in enumerate(labels, 1)
        ],
        "warnings": ["too short"],
        "error": None,
    } | changes


def failed(path: str = "bad.mp4") -> dict[str, Any]:
    nothing = {"fps": None, "duration": None, "decoder": None, "warnings": [], "predictions": []}
    return row(path) | nothing | {"error": "bad.mp4: not a video; check it"}


STRANGE = 'a\n"b",\x1b[2J\u202e\udcff;=1+2.mp4'


def test_json_round_trip(tmp_path: Path) -> None:
    rows = [row(), failed(), row(STRANGE, ("日本語", "=cmd|'x'!A1"))]
    for name in ("out.json", "out.jsonl"):
        path = tmp_path / name
        with open_output(path) as out:
            for item in rows:
                out.write(item, seconds=0.5)
        text = path.read_bytes().decode("utf-8")
        again = (
            json.loads(text) if name == "out.json" else [json.loads(line) for line in text.split("\n")[:-1]]
        )
        assert again == rows
        assert "日本語" in text
    with open_output(tmp_path / "none.json"):
        pass
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    broken = row(predictions=[{"rank": 1, "index": 0, "label": "a", "score": float("nan")}])
    for name in ("a.json", "a.jsonl", "a.csv"):
        with open_output(tmp_path / name) as out:
            out.write(broken)
    assert json.loads((tmp_path / "a.jsonl").read_text())["predictions"][0]["score"] is None
    assert next(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))["score"] == ""


def test_csv_has_a_line_for_each_rank(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path) as out:
        out.write(row(STRANGE, ('wide, "quoted"', "=1+2")))
        out.write(failed())
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["rank"] for line in lines] == ["1", "2", ""]
    assert lines[0]["label"] == 'wide, "quoted"'
    assert lines[1]["label"] == "=1+2"
    assert lines[0]["path"] == STRANGE.replace("\udcff", "\\udcff")
    assert float(lines[0]["score"]) == 0.75
    assert lines[0]["warnings"] == "too short"
    assert lines[2]["error"] == "bad.mp4: not a video; check it"
    assert tuple(lines[0]) == (
        *(
            "path",
            "rank",
            "index",
            "label",
            "score",
            "model",
            "weights",
            "views",
            "crops",
            "frames",
            "stride",
            "fps",
        ),
        *("duration", "decoder", "warnings", "error"),
    )


def test_a_pipe_gets_the_lines_of_csv_between_tabs(capfdbinary: Any) -> None:
    layout = Layout(carried={"label": "str", "split": "str"})
    texts = {}
    for format in (None, "tsv", "csv"):
        with open_output(None, format, layout=layout) as out:
            out.write({**row("a\tb.mp4"), "label": "true", "split": "7"}, seconds=1.0)
            out.write({**failed(), "label": "x", "split": "8"})
        texts[format] = capfdbinary.readouterr().out.decode("utf-8")
    assert texts[None] == texts["tsv"]
    (tabs, names), (commas, also) = (
        (list(reader), reader.fieldnames)
        for reader in (
            csv.DictReader(io.StringIO(texts["tsv"]), delimiter="\t"),
            csv.DictReader(io.StringIO(texts["csv"])),
        )
    )
    assert names == also
    assert [line["path"] for line in tabs] == ["a\\tb.mp4", "a\\tb.mp4", "bad.mp4"]
    for line in (*tabs, *commas):
        line.pop("path")
    assert tabs == commas
    assert [(line["label"], line["input_label"], line["split"]) for line in tabs] == [
        ("pan left", "true", "7"),
        ("shake", "true", "7"),
        ("", "x", "8"),
    ]


def test_wide_lines_have_one_for_each_clip(tmp_path: Path) -> None:
    layout = Layout(wide=2, carried={"label": "str"})
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with open_output(tmp_path / name, layout=layout) as out:
            out.write({**row(), "label": "true"})
            out.write({**failed(), "label": "x"})
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            good, bad = csv.DictReader(file, delimiter=delimiter)
        cells = [good[name] for name in ("label_1", "label_2", "score_2", "label")]
        assert cells == ["pan left", "shake", "0.25", "true"]
        assert (bad["label_1"], bad["error"]) == ("", "bad.mp4: not a video; check it")
    for format in set(FORMATS) - {"csv", "tsv"}:
        with pytest.raises(UsageError, match="wide: is for CSV or TSV"):
            check_output(None, format, wide=True)


def test_piped_table_is_plain_and_stable(capfdbinary: Any) -> None:
    with open_output(None, "table") as out:
        out.write(row(labels=("pan left", "日本\t語")), seconds=1.0)
        out.write(failed("bad\n.mp4"), seconds=2.0)
    text = capfdbinary.readouterr().out.decode("utf-8")
    assert text == (
        "clip.mp4\t1\t0.750000\tpan left\n"
        "clip.mp4\t2\t0.250000\t日本\\t語\n"
        "bad\\n.mp4\t-\t-\terror: bad.mp4: not a video; check it\n"
    )


def terminal(
    width: int = 80, encoding: str = "utf-8", color: bool = False
) -> tuple[Console, Callable[[], str]]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(
        file=file, width=width, force_terminal=True, highlight=False, markup=False, emoji=False,
        color_system="standard" if color else None, legacy_windows=False,
    )  # fmt: skip

    def shown() -> str:
        file.flush()
        return raw.getvalue().decode(encoding)

    return console, shown


def test_terminal_table() -> None:
    console, shown = terminal()
    with TerminalWriter(console) as out:
        out.write(row(), seconds=1.234)
        out.write(failed())
    text = shown()
    lines = text.splitlines()
    assert lines[0] == "clip.mp4"
    best = next(line for line in lines if "pan left" in line)
    assert best.count("█") == 18
    assert best.rstrip().endswith("75.0%")
    assert "warning: too short" in text
    assert "camera-motion | 4 views of 32 frames, stride 2 | decord | 1.2 s" in text
    assert "bad.mp4" not in text


def test_terminal_hides_no_control_characters() -> None:
    console, shown = terminal()
    with TerminalWriter(console) as out:
        out.write(row(STRANGE, ("[red]x[/red]\x1b[31m", ":smile:"), warnings=["\x07 bell"]))
    text = shown()
    assert "\x1b[31m" not in text
    assert "\x07" not in text
    assert "\\x1b[2J\\u202e\\udcff" in text
    assert "[red]x[/red]" in text
    assert ":smile:" in text


@pytest.mark.parametrize("width", [10, 24, 40, 55, 56, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "latin-1"])
def test_any_terminal(width: int, encoding: str) -> None:
    console, shown = terminal(width, encoding)
    with TerminalWriter(console) as out:
        out.write(row("日本語" * 20, ("日本語の長いラベル" * 5, "x" * 300)), seconds=0.1)
    lines = shown().splitlines()
    from rich.cells import cell_len

    assert max(map(cell_len, lines)) <= max(width, 28)
    assert ("█" in shown()) == (encoding == "utf-8" and width >= 56)


@pytest.mark.parametrize("width", [28, 40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_several_clips_have_one_line_each(width: int, encoding: str) -> None:
    from rich.cells import cell_len

    console, shown = terminal(width, encoding)
    names = ["clip.mp4", "日本語" * 20 + ".mp4", "bad\n.mp4", STRANGE]
    with LinesWriter(names, console) as out:
        out.write(row(names[0]), seconds=0.1)
        out.write(row(names[1], ("日本語の長いラベル" * 5, "x" * 300)))
        out.write(failed(names[2]))
        out.write(row(names[3], ("[red]x[/red]\x1b[31m",)))
    assert (out.rows, out.shown) == (4, True)
    lines = shown().splitlines()
    assert len(lines) == len(names)
    assert max(map(cell_len, lines)) <= width
    assert "75.0%" in lines[0]
    assert "\x1b" not in shown()
    if width >= 80:
        assert "pan left" in lines[0]
        assert ".mp4" in lines[1]
        assert "error" in lines[2]
        assert "not a video" in lines[2]
        assert "[red]x[/red]" in lines[3]


@pytest.mark.parametrize("no_color", [False, True])
def test_colors_only_where_wanted(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    console, shown = terminal(color=True)
    with TerminalWriter(console) as out:
        out.write(row())
    assert ("\x1b[36m" in shown()) != no_color


def test_a_terminal_gets_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(open_output(None), TerminalWriter)
    assert not isinstance(open_output(None, "json"), TerminalWriter)


def test_formats_by_name_and_suffix(tmp_path: Path) -> None:
    assert list(FORMATS) == ["table", "json", "jsonl", "csv", "tsv", "parquet"]
    for name, kind in (
        ("a.NDJSON", "jsonl"),
        ("a.csv", "csv"),
        ("a.txt", "table"),
        ("a", "table"),
        ("a.parquet", "parquet"),
    ):
        with open_output(tmp_path / name) as out:
            assert type(out.format) is FORMATS[kind]
    with pytest.raises(UsageError, match=r"'jsn' is not known, did you mean 'json'\?"):
        open_output(None, "jsn")


def test_files_appear_whole(tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.txt"):
        path = tmp_path / name
        path.write_text("before")
        with open_output(path, overwrite=True) as out:
            out.write(row())
            assert path.read_text() == "before"
        assert "pan left" in path.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json", "a.txt"]


def test_json_lines_appear_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open_output(path) as out:
        out.write(row())
        assert json.loads(path.read_text())["path"] == "clip.mp4"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
def test_interrupted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_output(path, overwrite=True):
        raise KeyboardInterrupt
    assert path.read_text() == "before"

    def interrupted_after_a_row() -> None:
        with open_output(path, overwrite=True) as out:
            out.write(row())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_after_a_row()
    text = path.read_text()
    assert "pan left" in text
    if name == "a.json":
        assert json.loads(text) == [row()]
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="does not exist; create it"):
        open_output(tmp_path / "missing" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError), open_output(tmp_path / name) as out:
        out.write(row())
    with pytest.raises(OutputError):
        open_output(tmp_path / f"a\0{name}")
    with pytest.raises(OutputError):
        open_output(tmp_path / ("x" * 4000 + name))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("format", list(FORMATS))
def test_a_full_disk(format: str) -> None:
    with pytest.raises(OutputError, match="No space left"), open_output("/dev/full", format) as out:
        out.write(row())
    out = open_output("/dev/full", format)
    with pytest.raises(OutputError, match="No space left"):
        out.write(row())


@POSIX
def test_a_disk_that_fills_up_keeps_what_is_there(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));"
        "from tests.output.test_output import row, open_output, OutputError\n"
        "try:\n"
        "    with open_output(sys.argv[1], overwrite=True) as out:\n"
        "        for _ in range(20): out.write(row())\n"
        "except OutputError as error: print(error); sys.exit(3)\n"
    )
    path = tmp_path / "out.json"
    path.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 3, done.stderr
    assert "writing failed (File too large)" in done.stdout
    assert path.read_text() == "before"
    (rest,) = (p for p in tmp_path.iterdir() if p != path)
    assert str(rest) in done.stdout
    assert rest.read_text().startswith('[\n  {\n    "path": "clip.mp4"')


@POSIX
def test_links_devices_and_modes(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("before")
    real.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    with open_output(link, overwrite=True) as out:
        out.write(row())
    assert link.is_symlink()
    assert json.loads(real.read_text())
    assert real.stat().st_mode & 0o777 == 0o640
    with open_output("/dev/null", "json") as out:
        out.write(row())
    assert not Path("/dev/null").is_file()


@POSIX
@pytest.mark.parametrize("format", list(FORMATS))
def test_a_reader_that_goes_away(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError), open_output(None, format) as out:
            out.write(row())
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


def test_stdout_is_utf8_whatever_the_locale() -> None:
    code = (
        "from tests.output.test_output import row, STRANGE; from vidcls.output.writers import open_output, FORMATS\n"
        "for format in [name for name, kind in FORMATS.items() if kind.text]:\n"
        "    with open_output('-', format) as out: out.write(row(STRANGE, ('日本語',)))\n"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        capture_output=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("utf-8").count("日本語") == len(FORMATS) - 1


def test_output_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidcls.output.writers; assert not {'torch', 'rich', 'av', 'decord'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_printable() -> None:
    assert printable("a\tb\x9b\u202eé 日") == "a\\tb\\x9b\\u202eé 日"


def test_suffixes_that_do_not_go_with_the_format(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"out\.xlsx: its suffix is not that of an output format; end its name in"
    ):
        open_output(tmp_path / "out.xlsx")
    with pytest.raises(UsageError, match=r"end its name in \.jsonl or \.ndjson$"):
        open_output(tmp_path / "out.xlsx", "jsonl")
    for name, kind in FORMATS.items():
        for suffix in kind.suffixes:
            for other in FORMATS:
                path = tmp_path / f"{name}{other}{suffix}"
                if other == name:
                    open_output(path, other).close()
                    continue
                with pytest.raises(
                    UsageError, match=f"its suffix is that of {name}, not of {other}; end its name"
                ):
                    open_output(path, other)
                assert not path.exists()


@pytest.mark.parametrize("name", [f"a{kind.suffixes[0]}" for kind in FORMATS.values()])
def test_nothing_is_overwritten_unasked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("precious")
    with pytest.raises(UsageError, match=rf"{name}: already exists; .*overwrite=True"):
        open_output(path)
    assert path.read_text() == "precious"
    with open_output(path, overwrite=True) as out:
        out.write(row())
    assert b"pan left" in path.read_bytes()


def test_parquet(tmp_path: Path, capfdbinary: Any) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [row(), failed(), row("日本語.mp4", warnings=[])]
    path = tmp_path / "a.parquet"
    with open_output(path) as out:
        for item in rows:
            out.write(item, seconds=1.0)
        assert not path.exists()
    assert pq.read_table(path).to_pylist() == rows
    with open_output(None, "parquet") as out:
        for item in rows:
            out.write(item)
    assert pq.read_table(io.BytesIO(capfdbinary.readouterr().out)).to_pylist() == rows
    with open_output(tmp_path / "none.parquet"):
        pass
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    with open_output(tmp_path / "strange.parquet") as out:
        out.write(row(STRANGE))
    (strange,) = pq.read_table(tmp_path / "strange.parquet").to_pylist()
    assert strange["path"] == STRANGE.replace("\udcff", "\\udcff")


def test_parquet_is_not_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="not for a terminal"):
        open_output(None, "parquet")


def test_a_torn_line_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON lines go straight into the file: a write that stops in the middle leaves whole lines."""
    path = tmp_path / "a.jsonl"
    out = open_output(path)
    out.write(row())
    whole = path.read_bytes()
    write = os.write

    def write_half(descriptor: int, data: Any) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("vidcls.output.sinks.os.write", write_half)
    with pytest.raises(OutputError, match="No space left"):
        out.write(row("second.mp4"))
    monkeypatch.undo()
    assert path.read_bytes() == whole


def test_closing_twice_and_writing_after(tmp_path: Path) -> None:
    out = open_output(tmp_path / "a.jsonl")
    out.write(row())
    out.close()
    out.close()
    with pytest.raises(OutputError, match="closed already"):
        out.write(row())
