"""Display matrices: pictures are turned and mirrored as the ffmpeg command does it."""

from __future__ import annotations

import math
import struct

import av
import numpy as np
import pytest

from tests.clips import make_clip, set_matrix
from vidcls.errors import VideoError
from vidcls.video.decord_decoder import DecordDecoder
from vidcls.video.orientation import from_matrix
from vidcls.video.reader import VideoReader

ONE = 0x10000
needs_decord = pytest.mark.skipif(
    not DecordDecoder.available(), reason="decord has no wheel for this machine"
)
DECODERS = ["auto", "pyav", pytest.param("decord", marks=needs_decord)]
UPRIGHT = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
NAMES = ["as is", "vertical flip", "horizontal flip", "180", "transpose", "90", "270", "antitranspose"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip, and its frames 3 and 11 as they are stored."""
    path = make_clip(tmp_path_factory.mktemp("clip") / "clip.mov", 20)
    with VideoReader("pyav") as reader:
        reader.open(path)
        return path, reader.read([3, 11]).frames


def turned_clip(clip, tmp_path, a, b, c, d):
    path = tmp_path / "turned.mov"
    path.write_bytes(clip[0].read_bytes())
    set_matrix(path, (a, b, 0, c, d, 0, 0, 0, 0x40000000))
    return path


def mapped(frames, a, b, c, d):
    """Each pixel (x, y) at (ax + cy, bx + dy), moved so that the picture begins at (0, 0)."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[0:height, 0:width]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    result = np.zeros((len(frames), down.max() + 1, across.max() + 1, 3), np.uint8)
    result[:, down, across] = frames
    return result


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("matrix", UPRIGHT, ids=NAMES)
def test_a2_all_turns_and_flips(clip, tmp_path, decoder, matrix):
    path = turned_clip(clip, tmp_path, *(ONE * number for number in matrix))
    expected = mapped(clip[1], *matrix)
    with VideoReader(decoder) as reader:
        info = reader.open(path)
        assert (info.height, info.width) == expected.shape[1:3]
        assert info.warnings == ()
        if decoder == "decord" and info.mirrored:  # FFmpeg 4.1 has no flips in it
            with pytest.raises(VideoError, match="does not read the display matrix"):
                reader.read([3])
            return
        got = reader.read([3, 11])
        np.testing.assert_array_equal(got.frames, expected)
        assert got.warnings == ()
    determinant = matrix[0] * matrix[3] - matrix[1] * matrix[2]
    assert info.mirrored == (determinant < 0)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a2_a_matrix_of_zeros_is_ignored(clip, tmp_path, decoder):
    with VideoReader(decoder) as reader:
        info = reader.open(turned_clip(clip, tmp_path, 0, 0, 0, 0))
        assert (info.rotation, info.mirrored, info.warnings) == (0, False, ())
        got = reader.read([3, 11])
    np.testing.assert_array_equal(got.frames, clip[1])
    assert got.warnings == ()


def by_the_filter(path, theta, numbers):
    """Frames as FFmpeg's rotate filter turns them, before they become RGB."""
    graph = av.filter.Graph()
    with av.open(str(path)) as container:
        frames = [frame for n, frame in enumerate(container.decode(video=0)) if n in numbers]
    source = graph.add_buffer(
        width=frames[0].width,
        height=frames[0].height,
        format=frames[0].format,
        time_base=frames[0].time_base,
    )
    graph.link_nodes(source, graph.add("rotate", f"{theta}*PI/180"), graph.add("buffersink")).configure()
    result = []
    for frame in frames:
        graph.push(frame)
        result.append(graph.pull().to_ndarray(format="rgb24"))
    return np.stack(result)


@pytest.mark.parametrize("theta", [30, 45, 89, 135, 271, 359])
def test_a2_odd_angles_turn_within_the_frame(clip, tmp_path, theta):
    cosine, sine = math.cos(math.radians(theta)), math.sin(math.radians(theta))
    path = turned_clip(clip, tmp_path, *(round(ONE * number) for number in (cosine, sine, -sine, cosine)))
    with VideoReader() as reader:
        info = reader.open(path)
        assert (info.height, info.width, info.rotation) == (96, 144, theta)
        np.testing.assert_array_equal(reader.read([3, 11]).frames, by_the_filter(path, theta, (3, 11)))


def test_a2_a_turn_by_one_degree_is_none(clip, tmp_path):
    cosine, sine = math.cos(math.radians(1)), math.sin(math.radians(1))
    path = turned_clip(clip, tmp_path, *(round(ONE * number) for number in (cosine, sine, -sine, cosine)))
    with VideoReader() as reader:
        assert reader.open(path).rotation == 0
        np.testing.assert_array_equal(reader.read([3, 11]).frames, clip[1])


def test_a2_scaled_and_hostile_matrices():
    """A matrix may scale as well, and may hold anything."""
    twice = from_matrix((2 * ONE, 0, 0, 0, -3 * ONE, 0, 0, 0, 1))
    assert (twice.mirrored, twice.turn) == (True, 180)
    rng = np.random.default_rng(0)
    for _ in range(500):
        matrix = struct.unpack("=9i", rng.bytes(36))
        found = from_matrix(matrix)
        assert found.turn in (0, 90, 180, 270)
        assert 0 <= found.angle < 360
    assert from_matrix((-(2**31),) * 9).angle in range(360)
