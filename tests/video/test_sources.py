from __future__ import annotations

import http.server
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidcls.video.sources import Source, discard, expand, fetch, is_video_name, walk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.txt", "sub/c.webm", "sub/deep/d.avi", "we[i]rd.mp4", "@at.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, recursive: bool = False) -> list[str]:
    return [s.name if s.error is None else f"!{s.error.kind}" for s in expand(arguments, recursive)]


def test_files_and_folders(folder: Path) -> None:
    assert names("b.mp4", "notes.txt") == ["b.mp4", "notes.txt"]
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

    monkeypatch.setattr("sys.stdin", Pipe(b"abc"))
    assert list(expand(["-"])) == [Source("-", b"abc")]
    monkeypatch.setattr("sys.stdin", Pipe(b""))
    assert names("-") == ["!empty"]
    monkeypatch.setattr("vidcls.video.sources.MAX_STDIN_BYTES", 2)
    monkeypatch.setattr("sys.stdin", Pipe(b"abc"))
    assert names("-") == ["!too_large"]


def test_walk_is_sorted_and_says_what_cannot_be_listed(folder: Path) -> None:
    assert [os.path.basename(p) for p in walk("sub")] == ["c.webm", "d.avi"]
    with pytest.raises(FileNotFoundError):
        list(walk("none"))


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
    assert source.is_url
    fetched = fetch(source)
    assert isinstance(fetched.clip, str)
    assert (fetched.name, Path(fetched.clip).read_bytes(), fetched.is_url) == (source.name, b"bytes", False)
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
