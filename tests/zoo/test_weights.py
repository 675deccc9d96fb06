"""Weights from paths, addresses and the hub: against a server of our own that misbehaves on demand."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vidcls.config import WeightsSpec
from vidcls.errors import WeightsError
from vidcls.paths import cache_dir
from vidcls.video import exchange, urls
from vidcls.video import http as download
from vidcls.zoo import weights
from vidcls.zoo.weights import checksum, is_present, resolve

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server does, and what it was asked."""

    address: str = ""
    content: bytes = CONTENT
    etag: str | None = '"one"'
    last_modified: str | None = None
    kind: str = "application/octet-stream"
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)  # bytes after which each next answer breaks off
    statuses: list[int] = field(default_factory=list)  # codes of the next answers
    redirects: dict[str, str] = field(default_factory=dict)
    lengths: bool = True
    lie: bool = False  # answer a range with another range
    requests: list[dict[str, str]] = field(default_factory=list)
    hold: threading.Event | None = None


def serve(site: Site) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            site.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
            if site.hold is not None:
                site.hold.wait(20)
            if site.statuses:
                self.answer(site.statuses.pop(0), {"Content-Length": "0"})
                return
            if self.path in site.redirects:
                self.answer(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
                return
            start, code = 0, 200
            wanted = self.headers.get("Range")
            known = self.headers.get("If-Range")
            if wanted and site.ranges and known in (None, site.etag, site.last_modified):
                start, code = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if start >= len(site.content):
                    self.answer(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(site.content)}"})
                    return
            body = site.content[start:]
            headers = {"Content-Type": site.kind, "ETag": site.etag, "Last-Modified": site.last_modified}
            if site.lengths:
                headers["Content-Length"] = str(len(body))
            if code == 206:
                first = start + 1 if site.lie else start
                headers["Content-Range"] = f"bytes {first}-{len(site.content) - 1}/{len(site.content)}"
            if site.breaks:
                body = body[: site.breaks.pop(0)]
                self.close_connection = True
            if not site.lengths:
                self.close_connection = True
            self.answer(code, headers)
            self.wfile.write(body)

        def answer(self, code: int, headers: dict[str, str | None]) -> None:
            self.send_response(code)
            for key, value in headers.items():
                if value is not None:
                    self.send_header(key, value)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    return server


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = serve(site)
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIDCLS_OFFLINE", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0, 0.0))


def left_over(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".lock"))


# Addresses


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_is_fetched_once(site: Site, lengths: bool) -> None:
    site.lengths = lengths
    url = f"{site.address}/some/model.safetensors?x=1"
    assert not is_present(url)
    path = resolve(url, progress=False)
    assert path.read_bytes() == CONTENT
    assert path.name == "model.safetensors"
    assert cache_dir() in path.parents
    assert left_over(path) == ["model.safetensors", "model.safetensors.record.json"]
    record = json.loads((path.parent / "model.safetensors.record.json").read_text())
    assert record["sha256"] == SHA256 == checksum(path)
    assert is_present(url)
    assert resolve(url) == path
    assert resolve(WeightsSpec(url=url, sha256=SHA256)) == path
    assert len(site.requests) == 1
    assert site.requests[0]["user-agent"].startswith("vidcls/")


def test_two_addresses_with_one_name_do_not_mix(site: Site) -> None:
    first = resolve(f"{site.address}/a/checkpoint", progress=False)
    site.content = b"other"
    second = resolve(f"{site.address}/b/checkpoint", progress=False)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"other")


@pytest.mark.parametrize("validator", ["etag", "last-modified"])
def test_a_broken_download_goes_on(site: Site, validator: str) -> None:
    if validator == "last-modified":
        site.etag, site.last_modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    site.breaks = [300_000, 200_000]
    path = resolve(f"{site.address}/m.pth", progress=False)
    assert path.read_bytes() == CONTENT
    assert [r.get("range") for r in site.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert {r.get("if-range") for r in site.requests[1:]} == {
        '"one"' if validator == "etag" else site.last_modified
    }


def test_it_goes_on_in_the_next_run_too(site: Site) -> None:
    url = f"{site.address}/m.pth"
    site.breaks = [100_000, 0, 0, 0, 0]
    with pytest.raises(WeightsError, match=r"the connection broke.*run the same command again.*is kept"):
        resolve(url, progress=False)
    assert not is_present(url)
    assert resolve(url, progress=False).read_bytes() == CONTENT
    assert site.requests[-1]["range"] == "bytes=100000-"


@pytest.mark.parametrize("how", ["ranges refused", "etag changed", "416", "no validator"])
def test_what_cannot_go_on_starts_again(site: Site, how: str) -> None:
    url = f"{site.address}/m.pth"
    if how == "no validator":
        site.etag = None
    site.breaks = [700_000, 0, 0, 0, 0]
    with pytest.raises(WeightsError):
        resolve(url, progress=False)
    if how == "ranges refused":
        site.ranges = False
    elif how == "etag changed":
        site.etag, site.content = '"two"', CONTENT[::-1]
    elif how == "416":
        site.content = CONTENT[:1000]
    assert resolve(url, progress=False).read_bytes() == site.content
    if how == "no validator":
        assert "range" not in site.requests[-1]


def test_a_server_that_ignores_if_range_is_caught_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """206 with another ETag than ours: the old bytes must not be glued to the new ones."""
    url = f"{site.address}/m.pth"
    site.breaks = [700_000, 0, 0, 0, 0]
    with pytest.raises(WeightsError):
        resolve(url, progress=False)
    part = next(cache_dir().rglob("*.part.json"))
    part.write_text(json.dumps(json.loads(part.read_text()) | {"etag": '"old"'}))
    site.content = CONTENT[::-1]
    site.last_modified = '"old"'  # the server takes our validator for good
    assert resolve(url, progress=False).read_bytes() == site.content


def test_a_range_that_does_not_fit_is_not_taken(site: Site) -> None:
    site.breaks, site.lie = [10_000], True
    with pytest.raises(WeightsError, match="another part than was asked for"):
        resolve(f"{site.address}/m.pth", progress=False)


def test_a_pinned_checksum_lets_it_go_on_without_a_validator(site: Site) -> None:
    site.etag = None
    site.breaks = [10_000]
    assert (
        resolve(WeightsSpec(url=f"{site.address}/m.pth", sha256=SHA256), progress=False).read_bytes()
        == CONTENT
    )
    assert [r.get("range") for r in site.requests] == [None, "bytes=10000-"]


def test_a_wrong_checksum(site: Site) -> None:
    spec = WeightsSpec(url=f"{site.address}/m.pth", sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"has the checksum {SHA256}, not {'0' * 64}"):
        resolve(spec, progress=False)
    assert not is_present(spec)
    assert not [p for p in cache_dir().rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_file_that_changed_in_the_cache(site: Site) -> None:
    url = f"{site.address}/m.pth"
    path = resolve(url, progress=False)
    os.utime(path, (1, 1))
    assert resolve(url) == path  # touched only
    path.write_bytes(b"rot" + CONTENT[3:])
    with pytest.raises(WeightsError, match="it changed since it was downloaded; delete it"):
        resolve(url)
    path.unlink()
    assert resolve(url, progress=False).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="delete it to download it again"):
        resolve(WeightsSpec(url=url, sha256="0" * 64))


@pytest.mark.parametrize("code", [503, 429, 500])
def test_a_busy_server_is_asked_again(site: Site, code: int) -> None:
    site.statuses = [code, code]
    assert resolve(f"{site.address}/m.pth", progress=False).read_bytes() == CONTENT
    site.statuses = [code] * 4
    with pytest.raises(WeightsError, match=f"the server answered {code}"):
        resolve(f"{site.address}/other.pth", progress=False)


@pytest.mark.parametrize(("code", "remedy"), [(404, "check the address"), (403, "login"), (410, "address")])
def test_a_server_that_refuses(site: Site, code: int, remedy: str) -> None:
    site.statuses = [code]
    with pytest.raises(WeightsError, match=f"answered {code} .*{remedy}"):
        resolve(f"{site.address}/m.pth", progress=False)
    assert len(site.requests) == 1


def test_redirects(site: Site) -> None:
    site.redirects = {
        "/a": "/b",
        "/b": f"{site.address}/c",
        "/file": "file:///etc/passwd",
        "/ftp": "ftp://127.0.0.1/x",
        "/loop": "/loop",
    }
    assert resolve(f"{site.address}/a", progress=False).read_bytes() == CONTENT
    for path, problem in (("/file", "not allowed"), ("/ftp", "only http")):
        with pytest.raises(WeightsError, match=problem):
            resolve(f"{site.address}{path}", progress=False)
    with pytest.raises(WeightsError, match="302"):
        resolve(f"{site.address}/loop", progress=False)
    handler = exchange.Redirects()
    request = exchange.urllib.request.Request("https://example.com/x")
    answer = io.BytesIO()
    with pytest.raises(exchange.FetchError, match="never from https to http"):
        handler.redirect_request(request, answer, 302, "", {}, "http://example.com/x")


def test_a_web_page_is_no_checkpoint(site: Site) -> None:
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="is a web page, not a file"):
        resolve(f"{site.address}/m.pth", progress=False)
    assert not list(cache_dir().rglob("*.part"))


@pytest.mark.parametrize("lengths", [True, False])
def test_too_large(site: Site, lengths: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    site.lengths = lengths
    monkeypatch.setattr(weights, "MAX_BYTES", 500_000)
    with pytest.raises(WeightsError, match="larger than"):
        resolve(f"{site.address}/m.pth", progress=False)


def test_no_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(WeightsError, match="0 MiB of free space, 1 MiB are needed"):
        resolve(f"{site.address}/m.pth", progress=False)


def test_a_server_that_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.hold = threading.Event()
    monkeypatch.setattr(exchange, "TIMEOUT", 0.1)
    with pytest.raises(WeightsError, match="timed out"):
        resolve(f"{site.address}/m.pth", progress=False)
    site.hold.set()
    with pytest.raises(WeightsError, match="refused"):
        resolve("http://127.0.0.1:1/m.pth", progress=False)


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://a:b/c", "https://a b/", "http://127.0.0.1:99999/x", "http://\n/"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(WeightsError):
        resolve(url, progress=False)


def test_dropbox_pages_become_files() -> None:
    direct = urls.direct_url("https://www.dropbox.com/s/abc/m.pyth?dl=0")
    assert direct == "https://www.dropbox.com/s/abc/m.pyth?dl=1"
    keyed = urls.direct_url("https://www.dropbox.com/scl/fi/abc/m.pyth?rlkey=k&dl=0")
    assert keyed == "https://www.dropbox.com/scl/fi/abc/m.pyth?rlkey=k&dl=1"
    assert urls.direct_url("https://notdropbox.com/m?dl=0") == "https://notdropbox.com/m?dl=0"
    assert urls.shown_url("https://me:secret@host:8/x?y") == "https://host:8/x?y"


@pytest.mark.parametrize("how", ["argument", "VIDCLS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(site: Site, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{site.address}/m.pth"
    if how != "argument":
        monkeypatch.setenv(how, "1")
    with pytest.raises(WeightsError) as caught:
        resolve(url, offline=how == "argument")
    assert not site.requests
    message = str(caught.value)
    assert message.startswith("m.pth: is not on this machine")
    place = Path(message.partition(f"get {url} and put it at ")[2])
    # What the message says to do works.
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert resolve(url, offline=how == "argument") == place
    assert checksum(place) == SHA256
    assert not site.requests


def test_two_processes_fetch_once(site: Site, tmp_path: Path) -> None:
    site.hold = threading.Event()
    code = "import sys; from vidcls.zoo.weights import resolve; print(resolve(sys.argv[1]))"
    command = [sys.executable, "-c", code, f"{site.address}/m.pth"]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    while not site.requests:
        threading.Event().wait(0.02)
    threading.Event().wait(1.5)
    site.hold.set()
    results = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert len(site.requests) == 1
    assert sorted("waiting for another process" in err for _, err in results)[1]


def test_talk_goes_to_stderr_and_only_when_wanted(site: Site, capfd: Any) -> None:
    resolve(f"{site.address}/a.pth")
    assert capfd.readouterr() == ("", "downloading a.pth\n")
    resolve(f"{site.address}/b.pth", progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_bar_on_a_terminal(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    resolve(f"{site.address}/a[red].pth")
    shown = capsys.readouterr().err
    assert "a_red_.pth" in shown
    assert "MB" in shown


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="VIDCLS_CACHE"):
        resolve(f"{site.address}/m.pth", progress=False)


# Paths


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(CONTENT)
    assert resolve(str(path)) == path
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve(WeightsSpec(path=str(path), sha256=SHA256)) == path
    assert is_present(str(path))
    with pytest.raises(WeightsError, match="checksum"):
        resolve(WeightsSpec(path=str(path), sha256="0" * 64))


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ("missing.pth", "no such file or folder; check the path"),
        ("google/vivit-b-16x2", "write hub:google/vivit-b-16x2"),
        ("ftp://host/m.pth", "ftp: addresses cannot be read"),
        ("file:///etc/passwd", "file: addresses cannot be read"),
        ("", "are empty"),
        ("a\0b", "no"),
        (WeightsSpec(path="missing.pth"), "no such file"),
        (WeightsSpec(bundled="missing.safetensors"), "no such file"),
    ],
    ids=str,
)
def test_paths_that_lead_nowhere(
    wanted: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        resolve(wanted)
    assert what in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WeightsError, match="not an ordinary file"):
        resolve(str(tmp_path / "fifo"))


# The hub


COMMIT = "c" * 40


def hub_folder(root: Path, name: str = "model.safetensors", revision: str = "main") -> Path:
    repository = root / "hub" / "models--org--clips"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(CONTENT)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT)
    return folder


@pytest.mark.parametrize("offline", [True, False])
def test_hub_repositories_in_the_cache(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert not is_present("hub:org/clips")
    folder = hub_folder(tmp_path)
    assert is_present("hub:org/clips")
    assert is_present(WeightsSpec(hub=f"org/clips@{COMMIT}"))
    assert not is_present("hub:org/clips@v2")
    assert resolve("hub:org/clips", offline=offline) == folder
    assert resolve(f"hub:org/clips@{COMMIT}", offline=offline) == folder
    spec = WeightsSpec(hub="org/clips", sha256=checksum(folder))
    assert resolve(spec, offline=offline) == folder
    (folder / "config.json").write_text("{ }")
    with pytest.raises(WeightsError, match="checksum"):
        resolve(spec, offline=offline)


def test_hub_cache_is_where_the_library_has_it(tmp_path: Path) -> None:
    code = (
        "from huggingface_hub import constants, try_to_load_from_cache;"
        "from vidcls.paths import hugging_face_cache;"
        "from pathlib import Path;"
        "assert Path(constants.HF_HUB_CACHE) == hugging_face_cache(), constants.HF_HUB_CACHE;"
        "assert isinstance(try_to_load_from_cache('org/clips', 'config.json', cache_dir=hugging_face_cache()), str)"
    )
    hub_folder(tmp_path / "home")
    hub_folder(tmp_path / "xdg" / "huggingface")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    for settings in (
        {"HF_HOME": str(tmp_path / "home")},
        {"HF_HUB_CACHE": str(tmp_path / "home" / "hub")},
        {"XDG_CACHE_HOME": str(tmp_path / "xdg")},
    ):
        subprocess.run([sys.executable, "-c", code], check=True, env=clean | settings)


def test_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError) as caught:
        resolve("hub:org/clips")
    message = str(caught.value)
    assert message.startswith("hub:org/clips: is not on this machine")
    assert "hf download org/clips" in message
    assert str(tmp_path / "hub") in message


@pytest.mark.parametrize(
    "name", ["hub:clips", "hub:org/clips/x", "hub:org/../x", "hub:", "hub:org/clips@../../x"]
)
def test_hub_names_that_are_none(name: str) -> None:
    with pytest.raises(WeightsError, match="not the name of a repository"):
        resolve(name)


HUB_CODE = """
import sys
from vidcls.zoo.weights import resolve
from vidcls.errors import WeightsError
try:
    print(resolve(sys.argv[1], progress=False))
except WeightsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def hub_server(files: dict[str, bytes]) -> http.server.ThreadingHTTPServer:
    """As much of the hub's interface as a download of one repository needs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/org/clips"):
                if "/tree/" in path:
                    listing = [
                        {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                        for n, c in files.items()
                    ]
                    self.answer(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
                    return
                info = {"id": "org/clips", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/org/clips/resolve/{COMMIT}/") and path.rpartition("/")[2] in files:
                content = files[path.removeprefix(f"/org/clips/resolve/{COMMIT}/")]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                self.answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_hub_download(name: str, tmp_path: Path) -> None:
    files = {"config.json": b"{}", name: CONTENT, "README.md": b"x", "onnx/model.safetensors": b"y"}
    server = hub_server(files)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = clean | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}

    def run(wanted: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", HUB_CODE, wanted]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    done = run("hub:org/clips")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert sorted(p.name for p in folder.iterdir()) == sorted(["config.json", name])
    assert (folder / name).read_bytes() == CONTENT
    missing = run("hub:org/other")
    assert missing.returncode == 3
    assert missing.stderr.startswith("hub:org/other: no such repository")
    server.shutdown()
    server.server_close()
    assert run("hub:org/clips").stdout == done.stdout
    away = run("hub:org/third")
    assert away.returncode == 3
    assert len(away.stderr.strip().splitlines()) == 1, away.stderr
    assert away.stderr.startswith("hub:org/third: cannot be fetched")


def test_weights_import_nothing_heavy() -> None:
    code = (
        "import sys; from vidcls.zoo.weights import is_present; is_present('hub:org/clips');"
        "assert not {'torch', 'huggingface_hub', 'rich', 'filelock'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
