"""The clips are what their labels say, by a measurement that shares nothing with how they were made."""

import csv
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

import av  # noqa: E402

from vidcls.errors import UsageError  # noqa: E402
from vidcls.training.camera_motion import synthesize as files  # noqa: E402
from vidcls.training.camera_motion.backgrounds import Background, FileBackgrounds, TextureBackgrounds  # noqa: E402
from vidcls.training.camera_motion.camera import (  # noqa: E402
    JITTER_RMS,
    LABELS,
    MOTION,
    SHAKE_RMS,
    CameraPath,
    Profile,
    make_path,
    make_profile,
)
from vidcls.training.camera_motion.dataset import (  # noqa: E402
    CameraMotionDataset,
    ClipSpec,
    make_clip,
    make_scene,
    sample_times,
    symmetric,
    symmetric_steps,
)
from vidcls.training.camera_motion.degradations import encode  # noqa: E402
from vidcls.training.camera_motion.scene import Scene, render  # noqa: E402
from vidcls.training.camera_motion.textures import MAKERS, dead_leaves  # noqa: E402

# How the picture must move for each label: axis of `measured` and sign. Right, down, growth, clockwise turn.
PICTURE = {
    "pan left": (0, 1), "pan right": (0, -1), "tilt up": (1, 1), "tilt down": (1, -1), "zoom in": (2, 1),
    "zoom out": (2, -1), "roll clockwise": (3, -1), "roll counter-clockwise": (3, 1),
}  # fmt: skip


LEAVES = dead_leaves(np.random.default_rng(4), 384)


class OneBackground:
    def draw(self, rng):
        return Background((LEAVES,))


def measured(frames):
    """Motion of the picture over a clip, by tracked corners: right, down (pixels), log scale, turn (radians)."""
    total = np.zeros(4)
    gray = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames]
    for before, after in pairwise(gray):
        corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 4)
        moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)
        matrix, _ = cv2.estimateAffinePartial2D(corners[found[:, 0] == 1], moved[found[:, 0] == 1])
        center = np.array([before.shape[1] / 2, before.shape[0] / 2])
        shift = matrix[:, :2] @ center + matrix[:, 2] - center
        total += [
            *shift,
            np.log(np.hypot(matrix[0, 0], matrix[1, 0])),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        ]
    return total


def pure_clip(label, size=(96, 96), perspective=0.0):
    """The named motion and nothing else, a quarter of a short side, of magnification or of a radian."""
    rng = np.random.default_rng(1)
    path = CameraPath(
        label, 2.0, np.zeros(4), Profile("linear"), np.zeros(4), Profile("linear"), perspective=perspective
    )
    if label in MOTION:
        channel, sign = MOTION[label]
        path = replace(path, change=np.eye(4)[channel] * sign * 0.25)
    scene = make_scene(rng, label, 2.0, min(size), OneBackground(), path)
    return render(Scene(path, scene.layers[:1], ()), np.linspace(0, 2, 16), size)


@pytest.mark.parametrize("perspective", [0.0, 40.0])
@pytest.mark.parametrize("label", PICTURE)
def test_picture_moves_against_the_camera(label, perspective):
    moved = measured(pure_clip(label, (96, 128), perspective))
    axis, sign = PICTURE[label]
    expected = 0.25 * (96 if axis < 2 else 1)
    assert moved[axis] * sign == pytest.approx(expected, rel=0.15)
    others = np.delete(moved / [96, 96, 1, 1], axis)
    assert np.abs(others).max() < 0.05


def test_static_picture_stands_still():
    frames = pure_clip("static")
    assert (frames == frames[0]).all()


@pytest.mark.parametrize("choice", range(16))
@pytest.mark.parametrize("label", ["pan left", "tilt up", "zoom in", "roll clockwise"])
def test_symmetric_images_bear_the_true_label(label, choice):
    frames, new = symmetric(pure_clip(label), LABELS.index(label), choice)
    moved = measured(frames) / [96, 96, 1, 1]
    axis = int(np.abs(moved).argmax())
    assert PICTURE[LABELS[new]] == (axis, np.sign(moved[axis]))
    channel, sign = MOTION[label]
    steps = symmetric_steps(np.tile(np.eye(4)[channel] * sign, (5, 1)), choice)
    channel, sign = MOTION[LABELS[new]]
    np.testing.assert_array_equal(steps, np.tile(np.eye(4)[channel] * sign, (5, 1)))


@pytest.mark.parametrize("label", ["static", "shake"])
def test_still_and_shaken_cameras_do_not_drift(label):
    times = np.linspace(0, 3, 200)
    for seed in range(30):
        state = make_path(np.random.default_rng(seed), label, 3.0).state(times)
        middle = state[:, :2] - state[:, :2].mean(0)
        rms = np.sqrt((middle**2).sum(1).mean())
        if label == "static":
            assert rms < 2.5 * JITTER_RMS
        else:
            assert rms > 0.6 * SHAKE_RMS[0]
            drift = state[-40:, :2].mean(0) - state[:40, :2].mean(0)
            assert np.abs(drift).max() < 1.6 * rms


@pytest.mark.parametrize("label", MOTION)
def test_main_motion_outweighs_cross_talk(label):
    channel, sign = MOTION[label]
    reach = np.array([1, 1, 0.5, 0.5])
    for seed in range(40):
        path = make_path(np.random.default_rng(seed), label, 2.5)
        total = (path.change + path.side_change) * reach
        assert np.sign(total[channel]) == sign
        assert np.abs(np.delete(total, channel)).max() < 0.45 * abs(total[channel])


def test_profiles_rise_from_none_to_all():
    u = np.linspace(0, 1, 101)
    for seed in range(60):
        progress = make_profile(np.random.default_rng(seed))(u)
        assert progress[0] == pytest.approx(0, abs=1e-9)
        assert progress[-1] == pytest.approx(1, abs=1e-9)
        assert np.diff(progress).min() > -1e-9


@pytest.mark.parametrize("name", MAKERS)
def test_textures_are_pictures_and_follow_from_the_seed(name):
    make = MAKERS[name][0]
    one, same = (make(np.random.default_rng(3), 96) for _ in range(2))
    assert one.shape == (96, 96, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert one.std() > 1


def test_clips_follow_from_seed_and_index_alone():
    spec = ClipSpec(num_frames=4, side=16)
    first, again, other = (CameraMotionDataset(s, 200, spec) for s in (1, 1, 2))
    late, label = first[100]
    np.testing.assert_array_equal(late, again[100][0])
    assert label == again[100][1]
    assert late.shape == (4, 16, 16, 3)
    assert not np.array_equal(first[0][0], other[0][0])
    with pytest.raises(IndexError):
        first[200]


def test_labels_are_balanced():
    data = CameraMotionDataset(5, 1 << 20, ClipSpec(num_frames=4, side=16))
    labels = [item.label for number in range(6) for item in data.make_block(number)]
    counts = np.bincount(labels, minlength=len(LABELS))
    # Statics and shakes stay what they are in every symmetric image; the others change places among each other.
    assert counts.min() >= 10
    assert counts.max() <= 60


def test_looped_clips_say_where_they_begin_again():
    rng, backgrounds, spec = np.random.default_rng(2), OneBackground(), ClipSpec(side=16)
    times = [sample_times(rng, spec)[0] for _ in range(40)]
    assert 2 <= sum((np.diff(t) < 0).any() for t in times) <= 20
    items = [make_clip(rng, "pan left", spec, backgrounds)[1] for _ in range(25)]
    looped = [np.isnan(steps).any() for steps in items]
    assert any(looped)
    assert not all(looped)
    assert all(steps.shape == (31, 4) for steps in items)


def test_files_are_real_clips_with_a_true_table(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SIZES", ((160, 120, 0.6), (120, 160, 0.4)))
    out = tmp_path / "set"
    rows = files.synthesize(out, 10, 3)
    with (out / "labels.csv").open() as table:
        listed = list(csv.DictReader(table))
    assert [r["label"] for r in listed] == list(LABELS)
    assert [r["path"] for r in listed] == [r["path"] for r in rows]
    for listing in listed:
        with av.open(str(out / listing["path"])) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (int(listing["width"]), int(listing["height"]))
            frames = sum(1 for _ in container.decode(stream))
        assert frames == pytest.approx(float(listing["seconds"]) * float(listing["fps"]), abs=1)
    # Broken off: one clip and its row are gone. Only that clip is made again, and it is the same one.
    victim = out / listed[-1]["path"]
    before, kept = victim.read_bytes(), (out / listed[0]["path"]).stat().st_mtime_ns
    victim.unlink()
    files.synthesize(out, 10, 3)
    # x264 reads padding beyond odd widths, so that the same frames need not give the very same bytes.
    assert len(victim.read_bytes()) == pytest.approx(len(before), rel=0.05)
    assert (out / listed[0]["path"]).stat().st_mtime_ns == kept
    with (out / "labels.csv").open() as table:
        assert sorted(r["path"] for r in csv.DictReader(table)) == sorted(r["path"] for r in listed)
    with pytest.raises(UsageError, match="not empty"):
        files.synthesize(out, 10, 4)


def test_own_pictures_and_footage_are_filmed(tmp_path):
    pictures, films = tmp_path / "pictures", tmp_path / "films"
    pictures.mkdir()
    films.mkdir()
    red = np.full((80, 120, 3), (0, 0, 200), np.uint8)
    cv2.imwrite(str(pictures / "red.png"), red)
    (pictures / "broken.jpg").write_bytes(b"not a picture")
    encode(str(films / "red.mp4"), np.repeat(red[None, ..., ::-1], 5, 0), Fraction(25), 20)
    for backgrounds in (FileBackgrounds(pictures), FileBackgrounds(films, videos=True)):
        drawn = [backgrounds.draw(np.random.default_rng(k)) for k in range(8)]
        assert all(abs(int(w.still[..., 0].mean()) - 200) < 12 and w.still[..., 1].mean() < 12 for w in drawn)
    plan = replace(files.plan_clip(1, 1), width=64, height=48, frames=6, cut=False)
    frames, _ = files.film(plan, FileBackgrounds(pictures))
    assert frames.shape == (6, 48, 64, 3)
    with pytest.raises(UsageError, match="no such folder"):
        FileBackgrounds(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no video"):
        FileBackgrounds(pictures, videos=True)


def test_a_folder_of_broken_pictures_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match="no file in it can be read"):
        FileBackgrounds(tmp_path).draw(np.random.default_rng(0))


def test_rule_worlds_follow_from_the_generator():
    one, same = (TextureBackgrounds(np.random.default_rng(2), 2, 64) for _ in range(2))
    for a, b in zip(one.backgrounds, same.backgrounds, strict=True):
        np.testing.assert_array_equal(a.still, b.still)


def test_example_clip_is_what_its_name_says():
    with av.open(str(Path(__file__).parents[3] / "examples" / "pan-left.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24")[::2, ::2] for f in container.decode(video=0)]
    right, down, *_ = measured(frames[::4])
    assert right > 20
    assert abs(down) < right / 3
