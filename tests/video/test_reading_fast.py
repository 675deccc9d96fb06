"""Ways in which reading saves work: scaled while it is decoded, read on from where it stood, frames left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.clips import make_clip, number_frame
from vidcls.config import InputSpec, load_registry
from vidcls.inference.load import load
from vidcls.video import pyav_decoder
from vidcls.video.decoders import Scaling
from vidcls.video.index import Index, build_index
from vidcls.video.pyav_decoder import PyAVDecoder
from vidcls.video.reader import VideoReader
from vidcls.views.resize import resize_frame
from vidcls.views.transform import FrameTransform, frame_transform

FRAMES = 60
PYRAMID = {"bframes": 3, "gop": 20, "options": {"preset": "veryfast"}}


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("fast") / "pyramid.mp4", FRAMES, **PYRAMID)


@pytest.fixture(scope="module")
def index(pyramid: Path) -> Index:
    return build_index(str(pyramid))


def small(rule: str = "swscale", **changes: Any) -> FrameTransform:
    return frame_transform(InputSpec(**{"image_size": 24, "resize": 24, "resize_rule": rule, **changes}))


# --- scaled while it is decoded


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_scaled_as_it_is_decoded_like_any_antialiased_resize(tmp_path: Path, rotation: int) -> None:
    path = make_clip(tmp_path / "clip.mp4", 8, rotation=rotation)
    with VideoReader("pyav") as reader:
        reader.open(path)
        whole = reader.read(range(8)).frames
        fast = reader.read(range(8), small()).frames
    exact = np.stack([small("round")(frame) for frame in whole]).astype(int)
    assert fast.shape == exact.shape
    assert np.abs(fast - exact).mean() < 3  # chroma is interpolated once instead of twice


@pytest.mark.parametrize(("resize", "crops"), [(24, 1), (24, 3), ((30, 40), 1), (None, 1)])
def test_scaled_by_the_decoder_or_after_it_is_the_same_cut(index: Index, resize: Any, crops: int) -> None:
    transform = small(resize=resize, num_crops=crops)
    height, width = index.shown_size
    (scaled,) = (
        transform(picture) for _, picture in PyAVDecoder(index).read([7], transform.scaling(height, width))
    )
    (late,) = (transform(picture) for _, picture in PyAVDecoder(index).read([7]))
    assert scaled.shape == late.shape
    assert np.abs(scaled.astype(int) - late).mean() < 3


def test_the_other_rules_see_whole_pictures(index: Index) -> None:
    for rule in ("truncate", "round", "torchvision", "float", "opencv"):
        assert small(rule).scaling(*index.shown_size) is None


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_pictures_in_memory_are_scaled_by_the_same_rule(kernel: str) -> None:
    picture = number_frame(1234, 96, 144)
    scaled = resize_frame(picture, (48, 72), "swscale", kernel, (10, 40, 20, 60))
    assert (scaled.shape, scaled.dtype) == ((30, 40, 3), np.uint8)
    pillow = resize_frame(picture, (48, 72), "round", kernel, (10, 40, 20, 60))
    assert np.abs(scaled.astype(int) - pillow).mean() < (12 if kernel == "nearest" else 2)


def test_frames_that_change_their_size_are_all_scaled_to_one(tmp_path: Path) -> None:
    parts = [
        make_clip(tmp_path / f"{n}.h264", 6, size=size) for n, size in enumerate([(96, 144), (144, 216)])
    ]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader("pyav") as reader:
        info = reader.open(joined)
        frames = reader.read(range(info.num_frames), small()).frames
    assert frames.shape == (12, 24, 24, 3)


# --- left out


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Packets whose frames came out of the decoder."""
    numbers: list[int] = []
    plain = pyav_decoder.decode

    def counted(*arguments: Any) -> Iterator[Any]:
        for frame in plain(*arguments):
            numbers.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav_decoder, "decode", counted)
    return numbers


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize("step", [2, 5])
def test_frames_left_out_change_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, threads: int | None, step: int
) -> None:
    options = {"preset": "veryfast"} | (
        {"x265-params": "log-level=none:open-gop=0"} if codec == "libx265" else {}
    )
    path = make_clip(tmp_path / "clip.mp4", FRAMES, codec=codec, bframes=3, gop=20, options=options)
    index = build_index(str(path))
    whole = dict(PyAVDecoder(index).read(range(FRAMES)))
    numbers = decoded(monkeypatch)
    for number, picture in PyAVDecoder(index, threads).read(range(0, FRAMES, step)):
        np.testing.assert_array_equal(picture, whole[number])
    assert len(numbers) < 0.9 * FRAMES


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mjpeg", ".mov")])
def test_where_no_frame_needs_another_only_those_wanted_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, suffix: str
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    index = build_index(
        str(make_clip(tmp_path / f"clip{suffix}", FRAMES, codec=codec, gop=1, pix_fmt=pix_fmt))
    )
    whole = dict(PyAVDecoder(index).read(range(FRAMES)))
    numbers = decoded(monkeypatch)
    wanted = [*range(0, FRAMES, 4), FRAMES - 1]
    for number, picture in PyAVDecoder(index).read(wanted):
        np.testing.assert_array_equal(picture, whole[number])
    assert numbers == wanted


def test_damage_has_all_frames_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What conceals a damaged frame depends on the frames around it, wanted or not."""
    path = make_clip(tmp_path / "clip.mp4", FRAMES, **PYRAMID)
    with av.open(str(path)) as container:
        positions = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = positions[25]
    data[at + size // 2 : at + size] = bytes(reversed(data[at + size // 2 : at + size]))
    path.write_bytes(data)
    index = build_index(str(path))
    wanted = range(0, FRAMES, 3)
    plain = PyAVDecoder(index, threads=1)
    plain._skipping = False
    expected = dict(plain.read(wanted))
    decoder = PyAVDecoder(index, threads=1)
    got = dict(decoder.read(wanted))
    assert list(got) == list(expected)
    for number in wanted:
        np.testing.assert_array_equal(got[number], expected[number])
    assert decoder.warnings == plain.warnings


def test_a_size_is_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    index = build_index(str(make_clip(tmp_path / "clip.mp4", 3, rotation=90)))
    ((_, picture),) = PyAVDecoder(index).read([1], Scaling(60, 40, "BILINEAR"))
    assert picture.shape == (60, 40, 3)


# --- a stream


def test_a_stream_is_one_read_in_pieces(pyramid: Path) -> None:
    with VideoReader(threads=1) as reader:
        reader.open(pyramid)
        whole = reader.read(range(0, FRAMES, 2), small())
        pieces = list(reader.stream([*range(0, FRAMES, 2), 4, 4], small(), piece=7))
        assert [len(piece.indices) for piece in pieces] == [7, 7, 7, 7, 2]
        np.testing.assert_array_equal(np.concatenate([piece.indices for piece in pieces]), whole.indices)
        np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), whole.frames)


def test_the_bundled_model_is_scaled_as_it_is_decoded() -> None:
    rules = [load_registry()["camera-motion"].input.resize_rule]
    with load("camera-motion", engine="numpy") as model:
        rules.append(model.spec.input.resize_rule)
    assert rules == ["swscale", "swscale"]
