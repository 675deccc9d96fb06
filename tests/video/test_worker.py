"""The worker process: it may hang, crash or swell, and dies with its parent; nobody else notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tests.clips import make_clip, read_numbers
from vidcls.errors import UsageError, VideoError
from vidcls.video.decord_decoder import DecordDecoder
from vidcls.video.reader import VideoReader

needs_decord = pytest.mark.skipif(
    not DecordDecoder.available(), reason="decord has no wheel for this machine"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="by SIGIO's default action on Linux")
ROOT = Path(__file__).parents[2]


class FaultyReader(VideoReader):
    """Reads with a decord that misbehaves after its first frame."""

    _entry: ClassVar[str] = "tests.video.faulty_worker"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 30)


@pytest.fixture
def fault(monkeypatch):
    return lambda name: monkeypatch.setenv("VIDCLS_TEST_FAULT", name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hang", "not decoded within 1 s"),
        ("crash", "crashed"),
        ("swell", "memory"),
        ("error", "stops at damaged packets"),
    ],
)
def test_pyav_gets_one_more_try(clip, fault, name, says):
    fault(name)
    with FaultyReader(timeout=1 if name == "hang" else 30, max_memory=1 << 29) as reader:
        info = reader.open(clip)
        assert info.decoder == "decord"
        got = reader.read([2, 20])
        assert got.decoder == "pyav"
        assert read_numbers(got.frames) == [2, 20]
        assert len(got.warnings) == 1
        assert says in got.warnings[0]
        assert "read with PyAV" in got.warnings[0]
        started = time.monotonic()
        assert read_numbers(reader.read([5]).frames) == [5]  # the clip stays with PyAV
        if name == "hang":
            assert time.monotonic() - started < 1
        assert reader.open(clip).num_frames == 30  # and the next is read as ever


def test_both_hang(clip, fault):
    fault("hang-both")
    with FaultyReader(timeout=0.7) as reader:
        reader.open(clip)
        with pytest.raises(VideoError, match=r"clip\.mp4: was not decoded within 0.7 s; ") as caught:
            reader.read([2, 20])
        assert caught.value.kind == "timeout"
        assert reader.open(clip).num_frames == 30


@pytest.mark.parametrize(("name", "kind"), [("hang", "timeout"), ("crash", "crashed"), ("swell", "memory")])
def test_decord_alone_is_not_replaced(clip, fault, name, kind):
    fault(name)
    with FaultyReader("decord", timeout=1 if name == "hang" else 30, max_memory=1 << 29) as reader:
        reader.open(clip)
        with pytest.raises(VideoError) as caught:
            reader.read([2, 20])
        assert caught.value.kind == kind


def test_an_unforeseen_error_is_the_files_own(clip, fault):
    fault("bug")
    with FaultyReader("decord") as reader:
        reader.open(clip)
        with pytest.raises(
            VideoError, match=r"cannot be decoded .ZeroDivisionError: something nobody"
        ) as caught:
            reader.read([2, 20])
        assert caught.value.kind == "unreadable"


def big(picture):
    return np.zeros((64, 1024, 1024), np.uint8)


def test_frames_that_do_not_fit_are_refused(clip):
    with VideoReader(max_memory=1 << 28) as reader:
        reader.open(clip)
        with pytest.raises(VideoError, match="more than the memory bound") as caught:
            reader.read(range(30), big)
        assert caught.value.kind == "memory"
        assert read_numbers(reader.read([3]).frames) == [3]


def test_a_worker_killed_between_requests_is_replaced(clip):
    with VideoReader() as reader:
        reader.open(clip)
        reader._worker._process.kill()
        reader._worker._process.wait()
        assert read_numbers(reader.read([7]).frames) == [7]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_13_10_a_worker_killed_from_outside_gets_one_more_try(clip, monkeypatch):
    """As the system does that is short of memory: not the clip's fault."""
    with VideoReader("pyav") as reader:
        reader.open(clip)
        kill_while_busy(reader, monkeypatch, times=1)
        got = reader.read([2, 20])
        assert read_numbers(got.frames) == [2, 20]
        assert got.warnings == ()
        assert reader.open(clip).num_frames == 30


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_13_10_a_worker_killed_twice_is_not_called_the_files_damage(clip, monkeypatch):
    with VideoReader("pyav") as reader:
        reader.open(clip)
        kill_while_busy(reader, monkeypatch, times=2)
        with pytest.raises(VideoError, match=r"killed twice from outside.*free memory") as caught:
            reader.read([2, 20])
        assert "damaged" not in str(caught.value)
        assert reader.open(clip).num_frames == 30


def kill_while_busy(reader, monkeypatch, times):
    """Has the first workers that are asked something killed just then."""
    from vidcls.video.process import Worker

    ask, left = Worker.ask, [None] * times

    def killed(self, *arguments):
        if left:
            left.pop()
            self._process.kill()
            self._process.wait()
        return ask(self, *arguments)

    monkeypatch.setattr(Worker, "ask", killed)


def test_an_aborted_worker_gets_no_second_try(clip, fault):
    fault("hang")
    with FaultyReader("decord", timeout=60) as reader:
        reader.open(clip)
        threading.Timer(0.5, reader.abort).start()
        with pytest.raises(VideoError, match="crashed") as caught:
            reader.read([2, 20])
        assert caught.value.kind == "crashed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("way", ["fork", "multiprocessing", "threads"])
def test_c19_a_reader_used_before_a_fork(clip, way):
    """The child starts a worker of its own; the parent's goes on, and nobody hangs or leaves a process behind."""
    code = f"""
        import multiprocessing, os, threading
        from tests.clips import read_numbers
        from vidcls.video.reader import VideoReader

        reader = VideoReader()
        reader.open({str(clip)!r})
        parents = reader._worker._process.pid

        def work(wanted):
            numbers = read_numbers(reader.read(wanted).frames)
            info = reader.open({str(clip)!r})
            return numbers, info.num_frames, reader._worker._process.pid != parents

        if {way!r} == "multiprocessing":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(work, [[3], [4, 9]]) == [([3], 30, True), ([4, 9], 30, True)]
        else:
            if {way!r} == "threads":  # another thread holds the reader's lock as the process forks
                held = threading.Event()
                threading.Thread(target=lambda: (reader._lock.acquire(), held.set()), daemon=True).start()
                held.wait()
                reader_of_parent, lock = reader, threading.RLock()
            child = os.fork()
            if not child:
                assert work([3, 8]) == ([3, 8], 30, True)
                raise SystemExit(7)  # runs what is to be run at exit
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
            if {way!r} == "threads":
                reader._lock = lock
        assert read_numbers(reader.read([5]).frames) == [5]
        assert reader._worker._process.pid == parents
        print(parents)
    """
    process = run_python(code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert _gone(int(out))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_c19_bytes_stay_readable_after_a_fork(clip):
    """The temporary file is the parent's, who removes it."""
    code = f"""
        import os
        from tests.clips import read_numbers
        from vidcls.video.reader import VideoReader

        with VideoReader() as reader:
            reader.open(open({str(clip)!r}, "rb").read())
            child = os.fork()
            if not child:
                assert read_numbers(reader.read([8]).frames) == [8]
                reader.close()
                raise SystemExit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert read_numbers(reader.read([9]).frames) == [9]
            path = reader._path
        assert not os.path.exists(path)
    """
    process = run_python(code)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e300, 1e9, 0, -1])
def test_13_5_timeouts_that_no_clock_can_keep(timeout):
    with pytest.raises(
        UsageError, match=r"decode_timeout: .* is not a number of seconds between 0 and 86,400"
    ) as caught:
        VideoReader(timeout=timeout)
    assert "\n" not in str(caught.value)


def test_start_returns_at_once(clip):
    with VideoReader() as reader:
        reader.close()
        started = time.monotonic()
        reader.start()
        assert time.monotonic() - started < 0.5  # the worker's own imports take longer than a process's start
        assert reader.open(clip).num_frames == 30


def test_file_vanishes(clip, tmp_path):
    path = tmp_path / "gone.mp4"
    path.write_bytes(clip.read_bytes())
    with VideoReader() as reader:
        reader.open(path)
        path.unlink()
        with pytest.raises(VideoError, match="vanished") as caught:
            reader.read([0])
        assert caught.value.kind == "not_found"
        assert caught.value.subject == str(path)


def test_threads_may_share_a_reader(clip):
    results = []
    with VideoReader() as reader:
        reader.open(clip)

        def work(start):
            results.append((start, read_numbers(reader.read([start, start + 1]).frames)))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [(n, [n, n + 1]) for n in range(8)]


def run_python(code, **options):
    environment = {**os.environ, **options.pop("env", {})}
    warning = (
        "ignore:This process:DeprecationWarning"  # Python 3.12 and later warn of every fork beside threads
    )
    return subprocess.Popen(
        [sys.executable, "-W", warning, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        **options,
    )


def test_nothing_heavy_is_imported(clip):
    code = f"""
        import sys
        import vidcls.video.reader
        heavy = {{"torch", "av", "decord", "typer", "rich", "pydantic"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from vidcls.video import index as decode_index
        from vidcls.video import decoders
        decode_index.build_index({str(clip)!r})
        heavy -= {{"av"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    process = run_python(code)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def names_of_modules(picture):
    bad = [name for name in ("torch", "typer", "rich") if name in sys.modules]
    return np.array([len(bad)])


def test_worker_imports_no_torch(clip):
    with VideoReader() as reader:
        reader.open(clip)
        assert reader.read([0], names_of_modules).frames.tolist() == [[0]]


def test_no_chatter(tmp_path):
    """FFmpeg and decord say much about damaged files; none of it reaches the terminal."""
    path = make_clip(tmp_path / "noisy.mkv", 60, bframes=2)
    data = bytearray(path.read_bytes())
    for at in range(2000, len(data) - 50, 300):
        data[at] ^= 0xFF
    path.write_bytes(data)
    code = f"""
        from vidcls.errors import UsageError, VideoError
        from vidcls.video.reader import VideoReader
        with VideoReader() as reader:
            try:
                reader.open({str(path)!r})
                reader.read([0, 10, 20, 30])
            except (VideoError, IndexError):
                pass
    """
    process = run_python(code)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_a_program_that_forgets_to_close_ends_quietly(clip):
    code = f"""
        from vidcls.video.reader import VideoReader
        reader = VideoReader()
        reader.open({str(clip)!r})
        print(len(reader.read([0, 3]).frames), reader._worker._process.pid)
    """
    process = run_python(code)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.split()[0] == "2"
    assert _gone(int(out.split()[1]))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=linux_only)])
def test_no_orphan_when_the_parent_is_killed(clip, busy):
    code = f"""
        import sys, threading, time
        from tests.video.test_worker import FaultyReader
        reader = FaultyReader(timeout=500)
        reader.open({str(clip)!r})
        print(reader._worker._process.pid, flush=True)
        if {busy}:
            reader.read([0, 3])  # hangs, with the worker's interpreter locked
        time.sleep(500)
    """
    process = run_python(code, env={"VIDCLS_TEST_FAULT": "hang"})
    worker = int(process.stdout.readline())
    if busy:
        time.sleep(1)
    assert not _gone(worker, wait=0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert _gone(worker)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_ends_both_without_a_word_from_the_worker(clip):
    code = f"""
        from tests.video.test_worker import FaultyReader
        reader = FaultyReader(timeout=500)
        reader.open({str(clip)!r})
        print(reader._worker._process.pid, flush=True)
        try:
            reader.read([0, 3])
        except KeyboardInterrupt:
            print("interrupted", reader._worker)
    """
    process = run_python(code, env={"VIDCLS_TEST_FAULT": "hang"}, start_new_session=True)
    worker = int(process.stdout.readline())
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    out, err = process.communicate(timeout=20)
    assert (out, err) == ("interrupted None\n", "")
    assert _gone(worker)


def _gone(pid, wait=5.0):
    deadline = time.monotonic() + wait
    while True:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True  # dead, and waiting for an init that collects it
        except ProcessLookupError:
            return True
        except FileNotFoundError:
            pass  # no /proc: os.kill decides
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [pytest.param("decord", marks=needs_decord), "pyav"])
def test_memory_does_not_depend_on_the_clips_length(tmp_path, decoder):
    """Peak of the worker over a clip 20 times as long stays within 100 MB of the short one's."""
    peaks = {}
    for frames in (1000, 20_000):
        pictures = [picture for _ in range(frames // 10) for picture in _TEN]
        path = make_clip(tmp_path / f"{frames}.mp4", pictures, gop=250)
        with VideoReader(decoder) as reader:
            info = reader.open(path)
            reader.read(np.linspace(0, info.num_frames - 1, 64).astype(int))
            status = Path(f"/proc/{reader._worker._process.pid}/status")
            if not status.exists():
                pytest.skip("peak memory is read from /proc")
            peaks[frames] = int(status.read_text().split("VmHWM:")[1].split()[0]) >> 10
    assert peaks[20_000] < peaks[1000] + 100


_TEN = [np.full((120, 160, 3), 20 * n, np.uint8) for n in range(10)]
