"""How clips are cut into views, what reads them and what runs the model: keywords of ``vidcls.load``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from vidcls.errors import UsageError

Fps = Literal["auto", "native"] | float


@dataclass(frozen=True)
class Settings:
    """The keywords with their defaults.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` or one of `vidcls.engines.PRECISIONS`.
        engine: ``auto`` or one of `vidcls.engines.ENGINES`; see `vidcls.engines.select.choose` for ``auto``.
        num_views: Temporal views; None leaves it, like the next three, to the model's entry. ``auto`` scores these
            views one after another until the answer is clear, ``auto:N`` up to N of them; see docs/views.md.
        num_crops: Spatial crops per view, 1 or 3.
        num_frames: Frames per view.
        stride: Distance between sampled frames.
        fps: ``auto``, ``native`` or a rate in 1/s; see `vidcls.Classifier`.
        average: ``logits`` or ``probs``; None does as the model's authors do.
        merge_tokens: Share of the tokens of joint or spatial attention that are merged into similar ones, up to 0.9:
            faster, and answers change a little; see `vidcls.models.merging`.
        decoder: ``auto`` or one of `vidcls.video.decoders.DECODERS`.
        decode_timeout: Seconds after which a decoder is killed.

    Raises:
        UsageError: A value is not one of these.
    """

    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    num_views: int | str | None = None
    num_crops: int | None = None
    num_frames: int | None = None
    stride: int | None = None
    fps: Fps = "auto"
    average: Literal["logits", "probs"] | None = None
    merge_tokens: float = 0.0
    decoder: str = "auto"
    decode_timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.num_frames < 1:
            raise UsageError("num_frames", f"{self.num_frames} is not a number of frames", "give 1 or more")
        if self.average not in (None, "logits", "probs"):
            raise UsageError("average", f"{self.average!r} is unknown", "use 'logits' or 'probs'")
        rate = self.fps
        if rate not in ("auto", "native") and not (isinstance(rate, (int, float)) and 0 < rate <= 1000):
            raise UsageError(
                "fps", f"{rate!r} is not a frame rate", "use 'auto', 'native' or a number up to 1000"
            )


class SettingsKeywords(TypedDict, total=False):
    """`Settings` as a type checker wants keywords to be declared; a test compares the two."""

    device: str
    precision: str
    engine: str
    num_views: int | str | None
    num_crops: int | None
    num_frames: int | None
    stride: int | None
    fps: Fps
    average: Literal["logits", "probs"] | None
    merge_tokens: float
    decoder: str
    decode_timeout: float
