"""Frames of one file handed on piece by piece, decoded in one go."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.clips import make_clip, read_numbers
from tests.video.test_worker import FaultyReader, needs_decord
from vidcls.errors import VideoError
from vidcls.video.reader import VideoReader


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 200, size=(48, 96), gop=30, bframes=2)


@pytest.mark.parametrize("decoder", ["auto", pytest.param("decord", marks=needs_decord)])
def test_pieces_are_what_read_gives(clip, decoder):
    wanted = [*range(0, 60, 3), *range(150, 200)]
    with VideoReader(decoder) as reader:
        reader.open(clip)
        pieces = list(reader.stream(wanted, piece=16))
        whole = reader.read(wanted)
    assert {piece.decoder for piece in pieces} == {"pyav" if decoder == "auto" else decoder}
    assert [len(piece.indices) for piece in pieces] == [16, 16, 16, 16, 6]
    assert np.array_equal(np.concatenate([piece.indices for piece in pieces]), wanted)
    assert np.array_equal(np.concatenate([piece.frames for piece in pieces]), whole.frames)
    assert read_numbers(pieces[0].frames) == wanted[:16]


def test_a_file_that_hangs_the_decoder_is_an_error(clip, monkeypatch):
    monkeypatch.setenv("VIDCLS_TEST_FAULT", "hang-both")
    with FaultyReader(timeout=1) as reader:
        reader.open(clip)
        with pytest.raises(VideoError, match="not decoded within 1 s"):
            list(reader.stream(range(100)))


def test_the_timeout_does_not_count_the_time_between_pieces(clip):
    with VideoReader(timeout=1) as reader:
        reader.open(clip)
        numbers: list[int] = []
        for count, piece in enumerate(reader.stream(range(200), piece=8)):
            if count < 2:
                time.sleep(1.2)
            numbers += read_numbers(piece.frames)
    assert numbers == list(range(200))


def test_a_stream_that_is_left_early_leaves_the_reader_usable(clip):
    with VideoReader() as reader:
        reader.open(clip)
        stream = reader.stream(range(200), piece=4)
        assert read_numbers(next(stream).frames) == [0, 1, 2, 3]
        stream.close()
        assert read_numbers(reader.read([7]).frames) == [7]


def test_abort_ends_a_stream_of_another_thread(clip):
    found: list[BaseException] = []
    began = threading.Event()

    def consume(reader: VideoReader) -> None:
        try:
            for _ in reader.stream(range(200), piece=1):
                began.set()
                time.sleep(0.05)
        except VideoError as error:
            found.append(error)

    with VideoReader("pyav") as reader:
        reader.open(clip)
        thread = threading.Thread(target=consume, args=(reader,))
        thread.start()
        assert began.wait(30)
        reader.abort()
        thread.join(30)
    assert not thread.is_alive()
    assert found


def test_the_worker_serves_on_after_a_stream(clip):
    with VideoReader() as reader:
        reader.open(clip)
        process = reader._worker
        for _ in range(2):
            assert sum(len(piece.indices) for piece in reader.stream(range(10))) == 10
        assert reader._worker is process


def test_sound(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", 50, audio=True)
    with VideoReader() as reader:
        reader.open(clip)
        pieces = list(reader.sound())
        assert list(reader.sound())[-1].start == pieces[-1].start
        reader.open(make_clip(tmp_path / "silent.mp4", 10))
        assert list(reader.sound()) == []
    assert {piece.rate for piece in pieces} == {8000}
    samples = np.concatenate([piece.samples for piece in pieces], 1)
    assert samples.shape[0] in (1, 2)
    assert samples.shape[1] == pytest.approx(16_000, abs=2100)
    assert 0.5 < np.abs(samples).max() < 1.5
    assert pieces[0].start == pytest.approx(0.0, abs=0.2)
