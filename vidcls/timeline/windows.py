"""Where the windows of a video lie, and which frames each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import UsageError
from vidcls.views.sampling import PUBLISHED_RATE, ClipPlan, Indices, plan_clips

if TYPE_CHECKING:
    from vidcls.config import InputSpec
    from vidcls.inference.settings import Fps
    from vidcls.video.reader import VideoInfo

SPREAD = ("uniform", "segments", "videomae-sparse")
"""Sampling rules that spread their frames over the whole clip, however long it is."""
SPREAD_SECONDS = 4.0
"""Default window of models with such a rule: about the mean length of a clip of Something-Something V2."""
MAX_WINDOWS = 1_000_000

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """The windows of one video, in order.

    Attributes:
        indices: (n, t) numbers of each window's frames in the file.
        starts: (n,) seconds.
        ends: (n,) seconds.
        step: Seconds from one window to the next.
        warnings: What the user should know about them.
    """

    indices: Indices
    starts: Seconds
    ends: Seconds
    step: float
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)


def check_lengths(window: float | None, step: float | None) -> None:
    """Refuse lengths that are not valid.

    Raises:
        UsageError: They are not positive, or moments would lie between the windows.
    """
    for name, value in (("window", window), ("step", step)):
        if value is not None and not 0.01 <= value <= 86_400:
            raise UsageError(name, f"{value:g} s is not a valid length", "give 0.01 to 86400 seconds")
    if window is not None and step is not None and step > window:
        problem = f"{step:g} s is longer than the window, {window:g} s"
        raise UsageError("step", problem, "choose a shorter step or a longer window")


def plan_windows(
    spec: InputSpec,
    info: VideoInfo,
    *,
    window: float | None = None,
    step: float | None = None,
    fps: Fps = "auto",
    unit_frames: int = 0,
) -> Windows:
    """Lay windows over a video, each sampled as the model samples one clip of that length.

    Windows begin every ``step`` seconds, moved to the nearest place where they share frames or tubelets with the one
    before; the last one ends with the video. A video that is shorter than a window is one window, sampled as
    `vidcls predict` samples it.

    Args:
        spec: How the model sees a video.
        info: The video.
        window: Length in seconds; None means the model's own clip length.
        step: Seconds from window to window; None means half of the window.
        fps: As of the `Classifier`.
        unit_frames: Frames that the model encodes together; see `vidcls.engines.Engine`.

    Raises:
        UsageError: The lengths are not valid, or there would be too many windows.
    """
    check_lengths(window, step)
    spec = spec.model_copy(update={"num_views": 1})
    target = fps
    if window is not None and spec.sampling not in SPREAD:
        target = spec.num_frames * spec.stride / window
    plan = partial(
        plan_clips,
        spec,
        num_frames=info.num_frames,
        fps=info.fps,
        timestamps=info.timestamps,
        target_fps=target,
    )
    alone: ClipPlan = plan()
    sampling = _Sampling(spec, info, alone.rate or 1.0, window, unit_frames)
    whole: ClipPlan = plan(rules={spec.sampling: partial(sampling, step=step)})
    if sampling.starts is None:
        return Windows(alone.indices, np.zeros(1), np.array([info.duration]), info.duration, alone.warnings)
    starts = sampling.seconds(sampling.starts, target)
    ends = np.minimum(sampling.seconds(sampling.starts + sampling.span, target), info.duration)
    ends[-1] = info.duration
    return Windows(whole.indices, starts, ends, sampling.step / sampling.rate, whole.warnings)


class _Sampling:
    """A rule for `plan_clips` that yields all windows of a timeline; afterwards it knows where they lie.

    Attributes:
        starts: (n,) moments; None where the video is shorter than one window.
        span: Moments of a window.
        step: Moments from window to window.
        rate: Moments per second.
    """

    def __init__(
        self, spec: InputSpec, info: VideoInfo, rate: float, window: float | None, unit_frames: int
    ) -> None:
        self._spec, self._info, self._window, self._unit_frames = spec, info, window, unit_frames
        self.starts: Indices | None = None
        self.span, self.step, self.rate = 0, 0.0, rate

    def __call__(
        self, spec: InputSpec, length: int, speed: float, *, step: float | None
    ) -> tuple[Indices, str]:
        offsets = self._offsets(length, speed)
        if length < self.span or length == 1:
            return np.zeros((1, 1), np.int64), ""
        self.step = max(1.0, self.span / 2 if step is None else min(step * self.rate, self.span))
        self.starts = self._places(length)
        return np.minimum(self.starts[:, None] + offsets, length - 1), ""

    def _offsets(self, length: int, speed: float) -> Indices:
        """Moments of one window's frames from its start, by the model's own rule for a clip of its length."""
        spec = self._spec
        if spec.sampling in SPREAD:
            seconds = SPREAD_SECONDS if self._window is None else self._window
            self.span = spec.num_frames * max(1, round(seconds * self.rate / spec.num_frames))
            if self._window is None:  # a whole clip is what such a model knows
                self.span = max(1, min(self.span, length))
            return self._alone(self.span)
        self.span = max(1, round(spec.num_frames * spec.stride * speed))
        return self._alone(self.span, speed)

    def _alone(self, length: int, speed: float = 1.0) -> Indices:
        """What the model's rule takes of a clip of so many moments; ``speed`` is 1 where moments are its own."""
        published = PUBLISHED_RATE.get(self._spec.sampling, 1.0)
        plan = plan_clips(self._spec, num_frames=length, fps=published * speed, target_fps=published)
        return plan.indices[0]

    def _places(self, length: int) -> Indices:
        room = length - self.span
        count = int(room / self.step) + 1
        if count > MAX_WINDOWS:
            raise UsageError("step", f"would make {count:,} windows", "choose a longer step")
        # Where windows begin a whole number of tubelets apart, they share all that lies in both.
        grid = (
            max(1, round(self.span / self._spec.num_frames * self._unit_frames)) if self._unit_frames else 1
        )
        starts = np.rint(np.arange(count) * self.step / grid).astype(np.int64) * grid
        starts = np.unique(starts[starts <= room])
        return np.append(starts, room) if starts[-1] < room else starts

    def seconds(self, moments: Indices, fps: Fps) -> Seconds:
        """When moments are: of a file whose frames count as they are, by its timestamps."""
        if fps == "native":
            times = np.append(self._info.timestamps, self._info.duration)
            return np.interp(moments, np.arange(len(times)), times)
        return moments / self.rate
