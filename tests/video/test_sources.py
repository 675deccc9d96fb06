from __future__ import annotations

import http.server
import io
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.score.test_run import rows_of, run
from vidcls.errors import InputError
from vidcls.score.listing import Inputs
from vidcls.video import sources
from vidcls.video.fetch import discard, fetch
from vidcls.video.sources import Source, expand, is_video_name, walk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.bin", "sub/c.webm", "sub/deep/d.avi", "we[i]rd.mp4", "@at.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, recursive: bool = False) -> list[str]:
    return [s.path if s.error is None else f"!{s.error.kind}" for s in expand(arguments, recursive)]


def test_files_and_folders(folder: Path) -> None:
    assert names("b.mp4", "notes.bin") == ["b.mp4", "notes.bin"]
    here = [os.path.join(".", n) for n in ("@at.mp4", "a.MKV", "b.mp4", "we[i]rd.mp4")]
    assert names(".") == here
    everything = names(".", recursive=True)
    assert everything == [
        *here,
        os.path.join(".", "sub", "c.webm"),
        os.path.join(".", "sub", "deep", "d.avi"),
    ]
    assert names("missing.mp4") == ["missing.mp4"]  # the reader says what is wrong with it


def test_globs_and_names_that_look_like_them(folder: Path) -> None:
    assert names("*.mp4") == ["@at.mp4", "b.mp4", "we[i]rd.mp4"]
    assert names("we[i]rd.mp4", "@at.mp4") == ["we[i]rd.mp4", "@at.mp4"]
    assert names("**/*.avi") == [os.path.join("sub", "deep", "d.avi")]
    assert names("*.zzz") == ["!not_found"]


def test_lists(folder: Path) -> None:
    Path("list.txt").write_text("b.mp4\n\n# a comment\nsub/*.webm\n-\n@list.txt\n", encoding="utf-8")
    assert names("@list.txt") == ["b.mp4", os.path.join("sub", "c.webm"), "-", "@list.txt"]
    assert [s.clip for s in expand(["@list.txt"])][-2:] == ["-", "@list.txt"]
    assert names("@none.txt") == ["!not_found"]


def test_empty_folder(folder: Path) -> None:
    assert names("folder.mp4") == ["!empty_folder"]
    assert names("folder.mp4", recursive=True) == ["!empty_folder"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def __init__(self, data: bytes) -> None:
            self.buffer = io.BytesIO(data)

        def isatty(self) -> bool:
            return False

    clip = b"\0\0\0\x20ftypisom"
    monkeypatch.setattr("sys.stdin", Pipe(clip))
    assert list(expand(["-"])) == [Source("-", clip)]
    monkeypatch.setattr("sys.stdin", Pipe(b""))
    assert names("-") == ["!empty"]
    monkeypatch.setattr("vidcls.video.sources.MAX_STDIN_BYTES", 2)
    monkeypatch.setattr("sys.stdin", Pipe(clip))
    assert names("-") == ["!too_large"]


def test_walk_is_sorted_and_says_what_cannot_be_listed(folder: Path) -> None:
    assert [os.path.basename(s.path) for s in walk("sub")] == ["c.webm", "d.avi"]
    (missing,) = walk("none")
    assert missing.error is not None
    assert "No such file" in missing.error.problem


def test_suffixes() -> None:
    assert is_video_name("a.MP4")
    assert is_video_name(Path("b.webm"))
    assert not is_video_name("mp4")


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/missing.mp4":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", "10" if self.path == "/broken.mp4" else "5")
            self.end_headers()
            self.wfile.write(b"bytes")

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_addresses(server: str) -> None:
    (source,) = expand([f"{server}/a.mp4"])
    assert source.is_remote
    fetched = fetch(source)
    assert isinstance(fetched.clip, str)
    assert (fetched.path, Path(fetched.clip).read_bytes(), fetched.is_remote) == (
        source.path,
        b"bytes",
        False,
    )
    discard(fetched)
    assert not Path(fetched.clip).exists()
    discard(Source("here.mp4", __file__))
    assert Path(__file__).exists()


@pytest.mark.parametrize(
    ("path", "message"), [("/missing.mp4", "answered 404"), ("/broken.mp4", "cannot be fetched")]
)
def test_addresses_that_fail(
    server: str, path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("vidcls.video.http.WAITS", (0.0,))
    failed = fetch(Source(server + path, None))
    assert failed.error is not None
    assert message in str(failed.error)
    assert list(tmp_path.iterdir()) == []
    refused = fetch(Source("http://127.0.0.1:1/a.mp4", None))
    assert refused.error is not None
    assert refused.error.kind == "fetch"


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    "start",
    [
        b"\0\0\0\x18ftypmp42",
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01",
        b"RIFF\x24\x30\x30\x30AVI LIST\x1c\0\0\0hdrl",
        b"FLV\x01\x05\0\0\0\x09",
        b"G@\0\x10\0\0\xb0\x0d",
        b"YUV4MPEG2 W160 H120 F25:1\nFRAME\n",
        b"GIF89a@\0@\0\xf7\0\0",
        b"\0\0\x01\xba",
    ],
)
def test_standard_input_with_a_clip(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    data = start + bytes(range(256)) * 1000
    pipe(monkeypatch, data)
    assert list(expand(["-"])) == [Source("-", data)]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"a.mp4\nb c.mp4\n", ["a.mp4", "b c.mp4"]),
        (b"a.mp4", ["a.mp4"]),
        (b"a.mp4\0b\nc.mp4\0", ["a.mp4", "b\nc.mp4"]),
        (b"\xef\xbb\xbfa.mp4\r\n\r\n# no\r\n\xff.mp4\r\n", ["a.mp4", "\udcff.mp4"]),
    ],
)
@pytest.mark.parametrize("argument", ["-", "@-"])
def test_standard_input_with_a_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch, argument: str, data: bytes, found: list[str]
) -> None:
    pipe(monkeypatch, data)
    assert names(argument) == found


def test_manifests_and_lists_mean_the_same_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What predict lists is what score lists, whatever is named and however."""
    Path("m.csv").write_text("Video;label\nb.mp4;run\n*.mp4;none\n", encoding="utf-8")
    Path("list.txt").write_text("b.mp4\nsub\nhttp://host/x.mp4\n", encoding="utf-8")
    for argument in ("m.csv", "list.txt", "@list.txt", ".", "*.mp4", "sub", "none.mp4", "http://host/y.mp4"):
        assert list(expand([argument])) == list(Inputs((argument,)))
    found = list(expand(["m.csv"]))
    assert [(s.path, s.clip, s.columns) for s in found] == [
        ("b.mp4", "b.mp4", {"label": "run"}),
        ("*.mp4", "*.mp4", {"label": "none"}),  # a row of a manifest is one clip
    ]
    here, below = os.path.join("sub", "c.webm"), os.path.join("sub", "deep", "d.avi")
    assert names("list.txt") == ["b.mp4", here, "http://host/x.mp4"]
    assert names("list.txt", recursive=True) == ["b.mp4", here, below, "http://host/x.mp4"]
    assert names("none.csv") == ["none.csv"]
    Path("bad.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert names("bad.csv") == ["!not_found"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_b10_a_loop_or_an_unreadable_entry_costs_no_other_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        (tmp_path / f"{i}.mp4").write_bytes(b"x")
    (tmp_path / "1loop.mp4").symlink_to("1loop.mp4")
    (tmp_path / "2gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "3dir.mp4").symlink_to(tmp_path)
    (tmp_path / "4locked.mp4").mkdir()
    (tmp_path / "4locked.mp4" / "x.mp4").write_bytes(b"x")
    system = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("4locked.mp4"):
            raise PermissionError(13, "Permission denied", path)
        return system(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = [(os.path.basename(s.path), s.error is None) for s in walk(str(tmp_path))]
    assert found == [
        ("0.mp4", True), ("1.mp4", True), ("1loop.mp4", True), ("2.mp4", True), ("2gone.mp4", True),
        ("3.mp4", True), ("4.mp4", True), ("5.mp4", True), ("4locked.mp4", False),
    ]  # fmt: skip


def test_a_huge_folder_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SORTED", 3)
    for i in range(9):
        (tmp_path / f"{i}.mp4").write_bytes(b"")
    found = [os.path.basename(s.path) for s in walk(str(tmp_path))]
    assert sorted(found) == [f"{i}.mp4" for i in range(9)]
    assert found[:3] == sorted(found[:3])


@pytest.mark.skipif(os.name == "nt", reason="there they are the system's own")
def test_b11_paths_of_windows_are_understood_or_said_to_be_that(folder: Path) -> None:
    Path("list.txt").write_bytes(b"sub\\c.webm\r\nC:\\clips\\a.mp4\r\nb.mp4\r\n")
    first, second, third = expand(["@list.txt"])
    assert (first.path, first.clip) == ("sub\\c.webm", "sub/c.webm")
    assert second.error is not None
    assert str(second.error).startswith("C:\\clips\\a.mp4: no such file; this is a Windows path")
    assert third.clip == "b.mp4"
    Path("back\\slash.mp4").write_bytes(b"x")
    assert [s.clip for s in expand(["back\\slash.mp4"])] == ["back\\slash.mp4"]


def test_lists_are_flat_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with path.open("w") as file:
        file.writelines(f"/nowhere/{i:07}/a-rather-long-name-of-a-clip.mp4\n" for i in range(100_000))
    tracemalloc.start()
    assert sum(1 for _ in expand([str(path)])) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_fuzz_lists_and_manifests(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever is in a list: clips or errors of their own, and a row's text is one printable line."""
    place = tmp_path_factory.getbasetemp() / "fuzz"
    place.mkdir(exist_ok=True)
    for name in ("a.txt", "a.csv", "a.tsv"):
        (place / name).write_bytes(data)
        (place / f"head{name}").write_bytes(b"path,label\n" + data)
        for source in expand([str(place / name), str(place / f"head{name}")], root=str(place)):
            assert isinstance(source, Source)
            assert source.path or source.error
            if source.error is not None:
                assert str(source.error)


def test_b11_a_newline_never_gets_into_a_rows_message(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path\n"two\nlines\x1b[31m.mp4"\n', encoding="utf-8")
    run(tmp_path / "out.jsonl", tmp_path / "m.csv")
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert row["path"] == "two\nlines\x1b[31m.mp4"
    (failed,) = expand(["no\nsuch*"])
    assert (
        str(failed.error) == r"no\nsuch*: no file matches this pattern; check it, and quote it from the shell"
    )
    error = InputError("a\nb", "c\rd\u202e", "e\x00")
    assert str(error) == r"a\nb: c\rd\u202e; e\x00"


def test_c18_a_large_file_on_standard_input_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
        file.truncate(sources.MAX_STDIN_BYTES + 1)  # a hole: no bytes on the disk
    with path.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        (found,) = expand(["-"])
        assert found.error is not None
        assert found.error.kind == "too_large"
        assert os.lseek(stream.fileno(), 0, os.SEEK_CUR) < 1 << 20
