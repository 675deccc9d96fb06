"""Which frames a training clip takes: each published family's own random rule. Imports no torch.

The rules mirror the fixed ones of `vidcls.views.sampling`, with the place of the clip left to chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidcls.config import InputSpec
from vidcls.video.decoders import Scaling
from vidcls.views.resize import Frame, check_kernel, decoder_scaling, resize_frame, resized_size
from vidcls.views.sampling import Indices, Rule, plan_clips

Generator = np.random.Generator


@dataclass(frozen=True)
class Resize:
    """Resize a whole frame as it is decoded; plain values, so that it goes cheaply to the decoding process.

    Attributes:
        resize: Length of the short side in pixels, an exact (h, w), or None.
        rule: See `vidcls.views.resize`.
        interpolation: Kernel of the resize.
    """

    resize: int | tuple[int, int] | None
    rule: str
    interpolation: str

    def scaling(self, height: int, width: int) -> Scaling | None:
        """What a decoder may scale pictures of a size to; None where the rule is not FFmpeg's."""
        return decoder_scaling(height, width, self.resize, self.rule, self.interpolation)

    def __call__(self, frame: NDArray[np.uint8]) -> Frame:
        """(h, w, 3) uint8 → (h', w', 3) uint8, or float32 in 0..255 under the rule ``float``."""
        size = resized_size(frame.shape[0], frame.shape[1], self.resize, self.rule)
        whole = (0, size[0], 0, size[1])
        return np.ascontiguousarray(resize_frame(frame, size, self.rule, self.interpolation, whole))


def resize_transform(spec: InputSpec, short_side: int | None = None) -> Resize:
    """The resize of a training frame; ``short_side`` in pixels takes the place of the model's own."""
    check_kernel(spec.resize_rule, spec.interpolation)
    return Resize(spec.resize if short_side is None else short_side, spec.resize_rule, spec.interpolation)


def random_clip(
    spec: InputSpec,
    rng: Generator,
    *,
    num_frames: int,
    fps: float,
    timestamps: NDArray[np.float64] | None = None,
) -> Indices:
    """Choose the frames of one training clip, (t,) int64 numbers of frames in the file.

    ``vivit``: the first frame is drawn from ``[0, max(L − (num_frames − 1)·stride, 1))``; past the end the file is
        looped (DMVR's ``sample_sequence``, as scenic trains).
    ``timesformer``, ``vtn``: the start is drawn from the room that a clip of ``num_frames·stride / fps`` seconds
        leaves (SlowFast's ``get_start_end_idx`` with clip index −1).
    ``segments``: one frame of each of ``num_frames`` equal segments is drawn (TimeSformer's ``ssv2.py``).
    ``uniform``, ``videomae-sparse``: like ``segments``, with the segments of `vidcls.views.sampling`.
    ``videomae``, ``vjepa2``: the start of a window of ``num_frames·stride`` frames is drawn; in a shorter file the
        window is the whole of it, and the last frame stays (both authors' data sets).

    Args:
        spec: What the model takes; ``num_views`` does not matter.
        rng: Draws the place.
        num_frames: Frames in the file.
        fps: Its mean frame rate in 1/s.
        timestamps: (num_frames,) seconds at which frames begin.
    """

    def vivit(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
        room = max(length - (spec.num_frames - 1) * spec.stride, 1)
        start = int(rng.integers(room))
        return (start + np.arange(spec.num_frames, dtype=np.int64)[None] * spec.stride) % length, ""

    def seconds(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
        size = spec.num_frames * spec.stride * speed
        start = rng.uniform(0.0, max(0.0, length - size)) if length > size else 0.0
        moments = np.linspace(start, start + size - 1, spec.num_frames)
        return np.clip(moments, 0, length - 1).astype(np.int64)[None], ""

    def segments(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
        edges = np.round(np.arange(spec.num_frames + 1) * ((length - 1) / spec.num_frames)).astype(np.int64)
        return rng.integers(edges[:-1], edges[1:] + 1)[None], ""

    def uniform(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
        edges = np.arange(spec.num_frames + 1) * length / spec.num_frames
        moments = edges[:-1] + rng.random(spec.num_frames) * (edges[1:] - edges[:-1])
        return np.minimum(moments.astype(np.int64), length - 1)[None], ""

    def window(spec: InputSpec, length: int, speed: float) -> tuple[Indices, str]:
        size = spec.num_frames * spec.stride
        span = min(size, length)
        count = spec.num_frames if length > size else max(span // spec.stride, 1)
        clip = np.full(spec.num_frames, float(span))
        clip[:count] = np.linspace(0, span, count)
        start = int(rng.integers(length - size)) if length > size else 0
        return (start + np.minimum(clip, span - 1).astype(np.int64))[None], ""

    rules: dict[str, Rule] = {
        "vivit": vivit,
        **dict.fromkeys(("timesformer", "vtn"), seconds),
        "segments": segments,
        **dict.fromkeys(("uniform", "videomae-sparse"), uniform),
        **dict.fromkeys(("videomae", "vjepa2"), window),
    }
    plan = plan_clips(spec, num_frames=num_frames, fps=fps, timestamps=timestamps, rules=rules)
    return plan.indices[0]
