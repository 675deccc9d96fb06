"""The interface of every engine: pixels or views in, logits out. Imports neither torch nor numpy."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from vidcls.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
Array: TypeAlias = "NDArray[Any]"
# Numbers of each view's frames (v, t), for models that use them.
Indices: TypeAlias = "NDArray[np.int64]"
# A pixel x becomes x * scale + shift, each (3,), one number for a channel.
ScaleShift: TypeAlias = "tuple[Floats, Floats]"


class Engine(Protocol):
    """A model that is ready to run.

    Models whose spatial encoder sees few frames at a time have ``unit_frames`` > 0: what `encode` gives for each
    unit may be used by several views, and `classify` needs no more than these features.

    Attributes:
        name: Which engine this is.
        device: Where it runs, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        unit_frames: Frames that the spatial encoder sees together, those of one tubelet or one frame; 0 for models
            in which all frames of a view meet at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def unit_frames(self) -> int: ...

    def prepare(self, dtype: np.dtype[Any], scale_shift: ScaleShift) -> None:
        """Do now what the first call on pixels of this type (uint8 or float32) would have to do."""

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        """Score views → logits (v, k).

        Args:
            views: (v, c, t, h, w) float32, normalized; or, with ``scale_shift``, pixels (v, t, h, w, 3), uint8 or
                float32, which are normalized where the model runs.
            frame_indices: (v, t), for models that use them.
            scale_shift: What makes numbers of pixels.

        Raises:
            DeviceError: The device ran out of memory.
        """
        ...

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        """Encode units (u, c, unit_frames, h, w), or pixels as above, → features (u, d)."""
        ...

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        """Score the features of the views' units (v, t', d) → logits (v, k)."""
        ...


def check_logits(logits: Floats, views: int, num_classes: int, subject: object) -> Floats:
    """Return an exported model's logits (v, k); a CheckpointError where k is not ``num_classes``, if that is not 0."""
    if num_classes and logits.shape != (views, num_classes):
        problem = f"gives logits of shape {logits.shape}, but says that it has {num_classes} classes"
        raise CheckpointError(str(subject), problem, "export the model again")
    return logits


def asked_threads() -> int:
    """Return how many threads ``OMP_NUM_THREADS`` asks for; 0 where it says nothing."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdecimal() else 0


class Wrapped:
    """An engine around another one, which does what is not said otherwise."""

    engine: Any

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # only after an AttributeError in making it
            raise AttributeError(name)
        return getattr(self.engine, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Floats:
        return self.engine(*arguments, **keywords)


class LazyEngine(Wrapped):
    """An engine that is made when it is first needed, so that clips can be read meanwhile; see `lazy`."""

    def __init__(self, make: Callable[[], Engine], unit_frames: int) -> None:
        self._make = make
        self.unit_frames = unit_frames

    @cached_property
    def engine(self) -> Engine:
        """The engine itself."""
        return self._make()


def lazy(make: Callable[[], Engine], unit_frames: int) -> Engine:
    """Return an engine that ``make`` makes when it is first needed; its ``unit_frames`` is known before."""
    return cast(Engine, LazyEngine(make, unit_frames))


def unit_frames(module: Any) -> int:
    """Frames that a model's spatial encoder sees together, 0 if it has none; see `Engine`."""
    if not hasattr(module, "encode_frames"):
        return 0
    tubelet = getattr(module.config, "tubelet_size", None)
    return 1 if tubelet is None else int(tubelet if isinstance(tubelet, int) else tubelet[0])
