"""One clip read, ready to be cut into views: from a video file, or from frames that are in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidcls.config import InputSpec
from vidcls.engines import Floats
from vidcls.errors import UsageError
from vidcls.video.reader import Frames, VideoInfo
from vidcls.video.sources import Source
from vidcls.video.urls import is_url
from vidcls.views.transform import ClipPlan, apply_transform, make_views, plan_clips


@dataclass(frozen=True)
class Clip:
    """One clip read, ready to be cut into views.

    Attributes:
        frames: (n, h', w', 3) each frame once, resized as the checkpoint wants it; uint8, or floats in 0..255.
        frame_indices: (n,) their numbers in the file, sorted.
        plan: Which of them make up each clip in time.
        spec: How the checkpoint sees a video.
        info: The file's metadata.
        decoder: The decoder that delivered the frames; ``frames`` where they came from memory.
        warnings: What the user should know about them.
    """

    frames: NDArray[Any]
    frame_indices: NDArray[np.int64]
    plan: ClipPlan
    spec: InputSpec
    info: VideoInfo
    decoder: str
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        spec = self.spec
        height, width = spec.image_size
        return (
            f"Clip({self.info.path!r}, {self.info.num_frames} frames, {spec.num_views} views x {spec.num_crops} crops "
            f"of {self.plan.indices.shape[1]} frames, {width}x{height}, {self.decoder})"
        )

    @cached_property
    def views(self) -> Floats:
        """(v, c, t, h, w) float32, normalized; crop-major: all clips of the first crop, then those of the second."""
        return make_views(self.frames, self.frame_indices, self.plan, self.spec)

    def preview(self, count: int = 6, height: int = 72) -> NDArray[np.uint8]:
        """Return some of the frames, small (count, h, w, 3), for people to see."""
        places = np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().astype(int)
        step = max(1, self.frames.shape[1] // height)
        return self.frames[places, ::step, ::step].astype(np.uint8)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Numbers of the frames of the plan that have not been read."""
        return np.setdiff1d(self.plan.unique, self.frame_indices, assume_unique=True)

    def with_frames(self, more: Frames) -> Clip:
        """Return the clip with frames that it lacked."""
        indices = np.concatenate([self.frame_indices, more.indices])
        order = np.argsort(indices)
        frames = np.concatenate([self.frames, more.frames])[order]
        warnings = (*self.warnings, *(w for w in more.warnings if w not in self.warnings))
        return replace(self, frames=frames, frame_indices=indices[order], warnings=warnings)

    @property
    def view_indices(self) -> NDArray[np.int64]:
        """(v, t) numbers in the file of each view's frames."""
        return np.tile(self.plan.indices, (self.spec.num_crops, 1))


def frames_in_memory(frames: Any) -> NDArray[np.uint8]:
    """Return frames as an array (t, h, w, 3).

    Args:
        frames: uint8 RGB, as an array (t, h, w, 3), or as a tensor (t, h, w, 3) or (t, 3, h, w) on any device.

    Raises:
        UsageError: They are something else; the message says what.
    """
    wanted = (
        "pass a path, a file's bytes, or uint8 RGB frames (t, h, w, 3); `predict_many` takes several clips"
    )
    if not (hasattr(frames, "ndim") and hasattr(frames, "dtype")):
        raise UsageError("clip", f"cannot be a {type(frames).__name__}", wanted)
    array: NDArray[np.uint8] = frames
    if hasattr(frames, "detach"):  # a tensor; torch need not be imported to know
        array = frames.detach().cpu().numpy()
        if array.ndim == 4 and array.shape[-1] != 3 and array.shape[1] == 3:
            array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise UsageError("clip", f"is an array of shape {tuple(array.shape)}", wanted)
    if array.dtype != np.uint8:
        raise UsageError("clip", f"is an array of {array.dtype}", wanted)
    return array


def clip_of_frames(
    frames: NDArray[np.uint8],
    spec: InputSpec,
    frame_rate: float | None,
    target_fps: Literal["auto", "native"] | float = "auto",
) -> Clip:
    """Make a clip of frames (t, h, w, 3) that are in memory; see `Classifier.predict`.

    Raises:
        UsageError: The frame rate is not valid.
    """
    if frame_rate is not None and not 0 < frame_rate <= 1000:
        raise UsageError(
            "frame_rate", f"{frame_rate!r} is not a valid frame rate", "give a number up to 1000"
        )
    count, height, width, _ = frames.shape
    times = np.arange(count) / (frame_rate or 1.0)
    plan = plan_clips(
        spec,
        num_frames=count,
        fps=frame_rate or 1.0,
        timestamps=times,
        target_fps="native" if frame_rate is None else target_fps,
    )
    # What is not known is 0.
    duration = count / frame_rate if frame_rate else 0.0
    info = VideoInfo(
        "frames", count, frame_rate or 0.0, duration, width, height, 0, "", "frames", times, False
    )
    ready = apply_transform(frames[plan.unique], spec)
    return Clip(ready, plan.unique, plan, spec, info, "frames", plan.warnings)


IN_MEMORY = ("frames", "-")  # what clips without a file of their own are called


@dataclass(frozen=True)
class FramesSource:
    """Frames (t, h, w, 3) that are in memory."""

    frames: NDArray[np.uint8]
    path: str = "frames"


def file_source(name: str) -> Source:
    """Return the source that a path or a URL names."""
    return Source(name, None if is_url(name) else name)


def source_of(clip: Any) -> Source | FramesSource:
    """Tell files from frames."""
    if isinstance(clip, Source):
        return clip
    if isinstance(clip, bytes):
        return Source("-", clip)
    if isinstance(clip, (str, os.PathLike)):
        return file_source(os.fspath(clip))
    return FramesSource(frames_in_memory(clip))
