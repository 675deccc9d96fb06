"""Which frames of a file make up the clips: the published rules. Imports no torch.

The other rules, but for ``timesformer`` and ``vtn``, count frames at the rate of the training clips; where a
file runs at another rate, or at none that is constant, they are worked out on a timeline of evenly spaced
moments, and each moment becomes the frame that is on the screen then. Those two measure a clip in seconds themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vidcls.config import InputSpec

Indices = NDArray[np.int64]

SAME_RATE = 0.01
"""Two rates this near to each other, relatively, count as one: 29.97 and 30, 23.976 and 24."""

MAX_SECONDS = 1e7
"""A file that claims to be longer (115 days) has broken timestamps."""

PUBLISHED_RATE = {"timesformer": 30.0, "vtn": 25.0}
"""Rate in 1/s by which these rules turn frames into seconds where a checkpoint names none (TARGET_FPS)."""


@dataclass(frozen=True)
class ClipPlan:
    """Which frames of the file make up each clip in time.

    Attributes:
        indices: (v, t) int64 numbers of frames in the file, in presentation order.
        looped: The file is too short for a whole clip, so that frames come more than once.
        warnings: What the user should know about it.
        rate: Moments per second by which frames were counted; 0 where the file names no frame rate.
    """

    indices: Indices
    looped: bool
    warnings: tuple[str, ...]
    rate: float = 0.0

    @property
    def unique(self) -> Indices:
        """The frames to decode: sorted, each once."""
        return np.unique(self.indices)


@dataclass(frozen=True)
class _Timeline:
    """Evenly spaced moments over a file, and the frame that each one shows.

    Attributes:
        length: Number of moments.
        rate: Moments per second.
        times: (num_frames,) seconds at which the file's frames begin; None where moment k is frame k.
    """

    length: int
    rate: float
    times: NDArray[np.float64] | None

    def frames(self, moments: Indices) -> Indices:
        """Return the frames on the screen at moments 0..length-1, same shape."""
        if self.times is None:
            return moments
        # Containers round times, to milliseconds in Matroska: a frame that begins a tenth early counts.
        slack = 0.1 * _frame_seconds(self.times, self.rate)
        shown = np.searchsorted(self.times, moments / self.rate + slack, side="right") - 1
        return np.clip(shown, 0, len(self.times) - 1).astype(np.int64)


def plan_clips(
    spec: InputSpec,
    *,
    num_frames: int,
    fps: float,
    timestamps: NDArray[np.float64] | None = None,
    target_fps: Literal["auto", "native"] | float = "auto",
    rules: Mapping[str, Rule] | None = None,
) -> ClipPlan:
    """Choose the frames of each clip by the rule ``spec.sampling``: see the functions of this name below.

    Args:
        spec: What the checkpoint wants.
        num_frames: Frames in the file, at least one.
        fps: The file's mean frame rate in 1/s.
        timestamps: (num_frames,) seconds at which frames begin; None for evenly spaced ones.
        target_fps: Rate at which frames are counted. ``auto`` takes ``spec.fps`` where it is set, ``native``
            counts frames as they are, a number is a rate in 1/s.
        rules: How clips are placed, instead of the rules above; training draws their places.

    Raises:
        ValueError: There are no frames, or the target rate is not positive.
    """
    if num_frames < 1:
        raise ValueError("a clip needs at least one frame")
    if not isinstance(target_fps, str) and not (math.isfinite(target_fps) and target_fps > 0):
        raise ValueError(f"target_fps must be positive, not {target_fps}")
    target = spec.fps if target_fps == "auto" else None if target_fps == "native" else float(target_fps)
    native = target_fps == "native"
    warnings: list[str] = []
    if not (math.isfinite(fps) and fps > 0):
        if target is not None:
            warnings.append("the file names no frame rate; its frames are counted as they are")
        timeline, speed = _Timeline(num_frames, 1.0, None), 1.0
    elif spec.sampling in PUBLISHED_RATE:
        timeline = _timeline(num_frames, fps, timestamps, None, native)
        speed = 1.0 if native else timeline.rate / (target or PUBLISHED_RATE[spec.sampling])
    else:
        timeline, speed = _timeline(num_frames, fps, timestamps, target, native), 1.0
    moments, notice = (rules or _RULES)[spec.sampling](spec, timeline.length, speed)
    if notice:
        counted = "" if timeline.times is None else f" (frames counted at {timeline.rate:.4g} fps)"
        warnings.append(notice + counted)
    rate = timeline.rate if math.isfinite(fps) and fps > 0 else 0.0
    return ClipPlan(timeline.frames(moments), bool(notice), tuple(warnings), rate)


def _timeline(
    num_frames: int, fps: float, timestamps: NDArray[np.float64] | None, target: float | None, native: bool
) -> _Timeline:
    """Lay out the moments to sample from; the file's own frames wherever these are as good."""
    if native:
        return _Timeline(num_frames, fps, None)
    times = _clean(timestamps, num_frames)
    if times is not None and len(times) > 1:
        fps = (len(times) - 1) / float(times[-1])
    even = times is None or _evenly_spaced(times)
    rate = target or fps
    if even and abs(fps / rate - 1) <= SAME_RATE:
        return _Timeline(num_frames, fps, None)
    if times is None:
        times = np.arange(num_frames) / fps
    # The last frame stays as long as those before it.
    seconds = float(times[-1]) + _frame_seconds(times[-8:], fps)
    return _Timeline(max(1, round(seconds * rate)), rate, times)


def _clean(timestamps: NDArray[np.float64] | None, num_frames: int) -> NDArray[np.float64] | None:
    """Return times that start at zero and never run backwards, or None where the file's make no sense."""
    if timestamps is None or len(timestamps) != num_frames or not np.isfinite(timestamps).all():
        return None
    times = np.maximum.accumulate(np.asarray(timestamps, dtype=np.float64))
    times = times - times[0]
    return times if num_frames == 1 or 0 < times[-1] < MAX_SECONDS else None


def _evenly_spaced(times: NDArray[np.float64]) -> bool:
    """Whether no frame is half a frame or more away from where a constant rate would have it."""
    if len(times) < 3:
        return True
    step = times[-1] / (len(times) - 1)
    return bool(np.abs(times - np.arange(len(times)) * step).max() < 0.5 * step)


def _frame_seconds(times: NDArray[np.float64], rate: float) -> float:
    """How long a usual frame stays on the screen."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 1 / rate


def _linspace(start: float, stop: float, count: int) -> NDArray[np.float32]:
    """Evenly spaced float32 values, ends included; a single one is ``start``."""
    return np.linspace(start, stop, count).astype(np.float32)


def _too_short(length: int, needed: int, how: str) -> str:
    frames = "frame" if length == 1 else "frames"
    return f"too short: {length} {frames} where a view spans {needed}; {how}"


def _vivit(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Spread clips of ``num_frames`` frames at ``stride`` from the first possible start to the last.

    A single one is centered; frames past the end are taken from the beginning again (scenic, DMVR's
    ``sample_sequence`` and ``sample_linspace_sequence``).
    """
    room = max(0, length - spec.num_frames * spec.stride)
    starts = _linspace(0, room, spec.num_views) if spec.num_views > 1 else np.array([room // 2])
    moments = starts.astype(np.int64)[:, None] + np.arange(spec.num_frames, dtype=np.int64) * spec.stride
    span = (spec.num_frames - 1) * spec.stride + 1
    notice = _too_short(length, span, "its frames were repeated") if length < span else ""
    return moments % length, notice


def _timesformer(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Start clip i of n at i/n of the room there is, each ``num_frames * stride / fps`` seconds long.

    Past the end the last frame stays (TimeSformer's ``datasets/decoder.py``).
    """
    size = spec.num_frames * spec.stride * speed
    room = max(0.0, length - size)
    starts = room * np.arange(spec.num_views) / spec.num_views
    # The reference decodes from the first frame at or after the start and counts from there. Times are whole
    # ticks, so that a start a hair past a frame still finds it.
    first = np.ceil(starts - 1e-3).astype(np.int64)
    steps = _linspace(0, max(0.0, size - 1), spec.num_frames).astype(np.int64)
    notice = _too_short(length, math.ceil(size), "its last frame stays") if length < size - 1 else ""
    return np.minimum(first[:, None] + steps, length - 1), notice


def _vtn(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take the same length in time as ``_timesformer``, spread over what there is when the file is shorter.

    As bomri/SlowFast with ``TEST.EVAL_FULL_VIDEO``.
    """
    size = spec.num_frames * spec.stride * speed
    starts = max(0.0, length - size) * np.arange(spec.num_views) / spec.num_views
    # A clip shorter than the time of one frame must not run backwards.
    rows = [_linspace(s, min(float(length), s + max(0.0, size - 1)), spec.num_frames) for s in starts]
    moments = np.clip(np.stack(rows).astype(np.int64), 0, length - 1)
    notice = _too_short(length, math.ceil(size), "frames come more than once") if length < size - 1 else ""
    return moments, notice


def _segments(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take the middle frame of each of ``num_frames`` equal segments of the file.

    Further views divide each segment evenly (TimeSformer's ``datasets/ssv2.py``).
    """
    # np.round goes to the even neighbor, as the reference's does.
    edges = np.round(np.arange(spec.num_frames + 1) * ((length - 1) / spec.num_frames)).astype(np.int64)
    part = np.arange(1, spec.num_views + 1)[:, None]
    moments = edges[:-1] + (edges[1:] - edges[:-1]) * part // (spec.num_views + 1)
    return moments, _repeats(spec, length)


def _uniform(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take the frame in the middle of each of ``num_frames`` equal parts of the file.

    Further views divide each part (ViViT, section 3.2, "uniform frame sampling").
    """
    # In whole numbers: floor((j + (i + 1/2) / v) * length / t) for frame j of view i.
    views, frames = spec.num_views, spec.num_frames
    place = 2 * (np.arange(frames, dtype=np.int64) * views + np.arange(views, dtype=np.int64)[:, None]) + 1
    return place * length // (2 * views * frames), _repeats(spec, length)


def _videomae(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take every ``stride``-th frame, and of those runs of ``num_frames`` from the first to the last.

    Where there are fewer, the last one stays (VideoMAE's ``kinetics.py``).
    """
    kept = np.arange(0, length, spec.stride, dtype=np.int64)
    room = max(len(kept) - spec.num_frames, 0)
    steps = room / max(spec.num_views - 1, 1)
    starts = [int(view * steps) for view in range(spec.num_views)] if spec.num_views > 1 else [room // 2]
    places = np.array(starts, dtype=np.int64)[:, None] + np.arange(spec.num_frames, dtype=np.int64)
    span = (spec.num_frames - 1) * spec.stride + 1
    notice = _too_short(length, span, "its last frame stays") if len(kept) < spec.num_frames else ""
    return kept[np.minimum(places, len(kept) - 1)], notice


def _videomae_sparse(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take one frame out of each of ``num_frames`` equal parts, the first one in view 0.

    Further views take later ones, by equal steps (VideoMAE's ``ssv2.py``).
    """
    tick = length / spec.num_frames
    start = np.arange(spec.num_views)[:, None] * tick / spec.num_views
    return (start + tick * np.arange(spec.num_frames)).astype(np.int64), _repeats(spec, length)


def _vjepa2(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take ``num_frames * stride`` frames at the start of each of ``num_views`` equal parts of the file.

    Where the parts are shorter than that, clips spread over the file and overlap (V-JEPA 2's ``video_dataset.py``,
    which draws the starts by chance in longer parts). Views of several clips have them one after the other.
    """
    views, frames = spec.num_views * spec.clips_per_view, spec.num_frames // spec.clips_per_view
    moments, notice = _vjepa2_clips(frames, spec.stride, views, length)
    return moments.reshape(spec.num_views, -1), notice


def _vjepa2_clips(frames: int, stride: int, views: int, length: int) -> tuple[Indices, str]:
    size = frames * stride
    if length // views > size:
        clip = np.minimum(np.linspace(0, size, frames), size - 1)
        return clip.astype(np.int64) + np.arange(views)[:, None] * (length // views), ""
    last = min(size, length) - 1
    clip = np.full(frames, float(last))
    clip[: last // stride] = np.linspace(0, last, last // stride)
    step = max(length - size, 0) // max(views - 1, 1)
    moments = np.clip(clip, 0, max(last - 1, 0)).astype(np.int64) + np.arange(views)[:, None] * step
    return moments, _too_short(length, size, "its last frame stays") if length < size else ""


def whole_file(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
    """Take every ``stride``-th moment of the whole timeline as one clip; a `Rule` for `plan_clips`.

    ``num_frames`` and ``num_views`` are not heeded: the clip is as long as the file.
    """
    step = spec.stride * speed
    count = max(1, math.ceil(length / step - 1e-9))
    moments = np.floor(np.arange(count) * step + 1e-9).astype(np.int64)
    return np.minimum(moments, length - 1)[None], ""


def _repeats(spec: InputSpec, length: int) -> str:
    return (
        _too_short(length, spec.num_frames, "frames come more than once") if length < spec.num_frames else ""
    )


Rule = Callable[["InputSpec", int, float], tuple[Indices, str]]
"""(spec, moments on the timeline, file's rate ÷ published rate) → moments (v, t), and a notice or ''."""

_RULES: dict[str, Rule] = {
    "vivit": _vivit,
    "timesformer": _timesformer,
    "vtn": _vtn,
    "segments": _segments,
    "uniform": _uniform,
    "videomae": _videomae,
    "videomae-sparse": _videomae_sparse,
    "vjepa2": _vjepa2,
}
