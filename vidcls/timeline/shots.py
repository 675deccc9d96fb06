"""Cuts by PySceneDetect, fed with frames of our own reader: the library never opens a stranger's file itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidcls.engines import Floats
from vidcls.errors import needing
from vidcls.inference.clip import Clip
from vidcls.timeline.ahead import ahead
from vidcls.timeline.scan import Film
from vidcls.timeline.windows import Windows
from vidcls.video.reader import VideoInfo, VideoReader
from vidcls.views.transform import frame_transform, plan_clips

LONG_SIDE = 256  # pixels, about what PySceneDetect scales frames down to itself
PIECE = 64


@dataclass(frozen=True)
class Shrink:
    """Takes every n-th row and column, so that the long side is near `LONG_SIDE`; runs where frames are decoded."""

    step: int

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Return BGR, as OpenCV has it."""
        return np.ascontiguousarray(frame[:: self.step, :: self.step, ::-1])


@dataclass(frozen=True)
class Shots:
    """Where the shots of a video are.

    Attributes:
        edges: Number of each shot's first frame, and at the end the number of frames (n + 1,).
        warnings: Of the decoder.
    """

    edges: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def find_shots(
    reader: VideoReader, info: VideoInfo, progress: Callable[[str, int, int], None] | None = None
) -> Shots:
    """Find the cuts of the open video, at each frame that begins another shot.

    Every frame is looked at once, small, by PySceneDetect's adaptive detector, which compares a frame's change with
    that of its neighbors and so does not take a fast pan for a cut.

    Raises:
        VideoError: The video cannot be decoded.
        DependencyError: PySceneDetect is not installed.
    """
    detect = _detector(info.fps)
    shrink = Shrink(max(1, math.ceil(max(info.width, info.height) / LONG_SIDE)))
    cuts: list[int] = []
    warnings: dict[str, None] = {}
    numbers = np.arange(info.num_frames)
    with ahead(lambda: reader.stream(numbers, shrink, PIECE), reader.abort) as stream:
        for piece in stream:
            warnings.update(dict.fromkeys(piece.warnings))
            for number, frame in zip(piece.indices.tolist(), piece.frames, strict=True):
                cuts += detect(number, frame)
            if progress is not None and len(piece.indices):
                progress(info.path, int(piece.indices[-1]) + 1, info.num_frames)
    inside = sorted({cut for cut in cuts if 0 < cut < info.num_frames})
    return Shots((0, *inside, info.num_frames), tuple(warnings))


def _detector(fps: float) -> Any:
    """Return a function (number, frame) → numbers of the frames at which it found cuts."""
    remedy = "pip install 'vidcls[shots]'"
    with needing("by", "shots needs PySceneDetect, which is not installed", remedy):
        from scenedetect.common import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector
    detector = AdaptiveDetector(min_scene_len=1)
    rate = fps if math.isfinite(fps) and fps > 0 else 25.0

    def detect(number: int, frame: np.ndarray) -> list[int]:
        return [int(cut.frame_num) for cut in detector.process_frame(FrameTimecode(number, rate), frame)]

    return detect


@dataclass
class ShotScan(Film):
    """Shots, each scored by the model's own views."""

    shots: Shots

    def __post_init__(self) -> None:
        edges = np.array(self.shots.edges)
        times = np.append(self.info.timestamps, self.info.duration)[edges]
        self.windows = Windows(edges[:-1, None], times[:-1], times[1:], 0.0, self.shots.warnings)

    def parts(self) -> list[slice]:
        return [slice(number, number + 1) for number in range(len(self.windows))]

    def scores(self, parts: list[slice]) -> Generator[tuple[slice, Floats], None, None]:
        """Score some shots; the next one is decoded meanwhile."""
        with ahead(lambda: map(self._read, parts), self.reader.abort) as clips:
            for part, clip in zip(parts, clips, strict=True):
                logits, units = self.classifier.clip_logits(clip)
                if units is not None:
                    self.units = self.units[0] + units[0], self.units[1] + units[1]
                self.decoder = clip.decoder
                self.warnings.update(dict.fromkeys(clip.warnings))
                yield part, self.classifier.scores(logits)[None]

    def _read(self, part: slice) -> Clip:
        """The views of a shot, as if it were a file of its own."""
        first, end = self.shots.edges[part.start : part.start + 2]
        spec, times = self.classifier.spec.input, self.info.timestamps[first:end]
        plan = plan_clips(
            spec,
            num_frames=end - first,
            fps=self.info.fps,
            timestamps=times - times[0],
            target_fps=self.classifier.fps,
        )
        frames = self.reader.read(plan.unique + first, frame_transform(spec))
        return Clip(frames.frames, plan.unique, plan, spec, self.info, frames.decoder, frames.warnings)
