"""The frames that a page shows of its clips: of some clips, within a bound of time and of bytes.

The paths come from a file of results, which may be a stranger's: nothing is fetched, and what is not a video of this
machine is passed over.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.config import InputSpec, load_registry
from vidcls.errors import VidclsError
from vidcls.output.pictures import jpeg_of, shrink_for
from vidcls.output.progress import ProgressBar
from vidcls.report.items import Item
from vidcls.video.reader import VideoInfo, VideoReader
from vidcls.video.sources import is_local
from vidcls.views.sampling import plan_clips

MAX_BYTES = 12 << 20  # of all pictures of a page
MAX_FRAMES = 16  # of one clip
MAX_VIEWS = 8  # of one clip
MAX_PLANNED = 1 << 20  # frames of all views of a clip, which are planned to show some
WHOLE = 12  # frames of a whole file, where nobody knows the views
CLIP_SECONDS = 10.0  # for decoding one clip
READERS = 4  # decoding processes at most


@dataclass(frozen=True)
class Strip:
    """Some frames of one view.

    Attributes:
        jpeg: They lie side by side, all of one size.
        times: Seconds at which each is shown.
        width: Pixels of one.
    """

    jpeg: bytes
    times: tuple[float, ...]
    width: int


@dataclass(frozen=True)
class Bounds:
    """What pictures may cost.

    Attributes:
        clips: Clips that get some.
        seconds: Time spent on all.
    """

    clips: int = 200
    seconds: float = 60.0


def choose(items: Sequence[Item], count: int) -> list[int]:
    """Return which items get pictures: the most confident errors first, then some of every label in turn."""
    local = [number for number, item in enumerate(items) if is_local(item.path)]
    wrong = sorted((n for n in local if items[n].wrong), key=lambda n: -items[n].top[0][1])
    groups: dict[str | None, list[int]] = defaultdict(list)
    for number in local:
        if not items[number].wrong and items[number].error is None:
            groups[items[number].label].append(number)
    turns = (n for turn in zip_longest(*groups.values()) for n in turn if n is not None)
    return [*wrong, *turns][:count]


def draw(
    items: Sequence[Item],
    settings: Mapping[str, Any] | None,
    bounds: Bounds,
    *,
    quiet: bool = False,
) -> dict[int, list[Strip]]:
    """Return the pictures of each clip by its number: a strip a view.

    Args:
        items: The clips.
        settings: Under which they were scored, where that is known; else the registry says how the model sees a clip.
        bounds: What they may cost; when time or space is up, the clips so far have theirs.
        quiet: No bar.
    """
    chosen = choose(items, bounds.clips)
    found: dict[int, list[Strip]] = {}
    size = 0
    drawn = _Artist(_Views(settings), bounds.seconds).draw(items, chosen)
    with (
        contextlib.closing(drawn),
        ProgressBar("thumbnails", len(chosen), unit="clips", shown=not quiet and bool(chosen)) as bar,
    ):
        for done, (number, strips) in enumerate(drawn, 1):
            bar.update(done)
            size += sum(len(strip.jpeg) for strip in strips)
            if size > MAX_BYTES:
                break
            if strips:
                found[number] = strips
    return found


class _Artist:
    """Draws clips in a few threads, each with a decoding process, until time is up."""

    def __init__(self, views: _Views, seconds: float) -> None:
        self._views = views
        self._timeout = max(min(CLIP_SECONDS, seconds), 0.1)
        self._readers: list[VideoReader] = []
        self._own = threading.local()
        self._over = threading.Event()
        self._clock = threading.Timer(seconds, self._end)
        self._clock.daemon = True

    def draw(
        self, items: Sequence[Item], chosen: Sequence[int]
    ) -> Generator[tuple[int, list[Strip]], None, None]:
        """Yield each clip's number and strips, in order; none where it cannot be read."""
        workers = max(1, min(READERS, os.cpu_count() or 1, len(chosen)))
        self._clock.start()
        with contextlib.ExitStack() as ending:
            ending.callback(self._close)
            pool = ending.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="vidcls-report"))
            ending.callback(self._end)
            yield from zip(chosen, pool.map(self._clip, [items[n] for n in chosen]), strict=True)

    def _close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _end(self) -> None:
        """Let what is being decoded fail, and what is still to be decoded not begin."""
        self._over.set()
        self._clock.cancel()
        for reader in self._readers:
            reader.abort()

    def _clip(self, item: Item) -> list[Strip]:
        if self._over.is_set() or not os.path.isfile(item.path):
            return []
        if not hasattr(self._own, "reader"):
            self._own.reader = VideoReader(timeout=self._timeout)
            self._readers.append(self._own.reader)
        try:
            return self._strips(item, self._own.reader)
        except (VidclsError, OSError):
            return []

    def _strips(self, item: Item, reader: VideoReader) -> list[Strip]:
        info = reader.open(item.path)
        views = self._views.frames(item, info)
        shrink = shrink_for(info)
        read = reader.read(np.unique(views), shrink)
        return [
            Strip(
                jpeg_of(read.frames[np.searchsorted(read.indices, view)]),
                tuple(round(float(info.timestamps[i]), 2) for i in view),
                shrink.width,
            )
            for view in views
        ]


class _Views:
    """Which frames to show of a clip: some of each of the views that the model saw."""

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        self._settings = settings
        self._specs: dict[str, InputSpec | None] = {}

    def frames(self, item: Item, info: VideoInfo) -> NDArray[np.int64]:
        """Return (views, frames) numbers in the file."""
        spec = self._spec(item)
        if spec is None:
            return _spread(info.num_frames, WHOLE)[None]
        wanted = (self._settings or {}).get("fps_option")
        known = wanted == "native" or (isinstance(wanted, (int, float)) and 0 < wanted <= 1000)
        fps: Any = wanted if known else "auto"
        plan = plan_clips(
            spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps, target_fps=fps
        )
        views = plan.indices[_spread(len(plan.indices), MAX_VIEWS)]
        return views[:, _spread(views.shape[1], max(2, MAX_FRAMES // len(views)))]

    def _spec(self, item: Item) -> InputSpec | None:
        """Return how the model saw the clip; None where that is not known."""
        key = f"{item.model} {item.views} {item.num_frames} {item.stride}"
        if key not in self._specs:
            self._specs[key] = self._find(item)
        return self._specs[key]

    def _find(self, item: Item) -> InputSpec | None:
        # A stranger's numbers may ask for millions of frames, of which a few would be shown.
        if item.num_frames is None or not 0 < item.num_frames * item.views <= MAX_PLANNED:
            return None
        changes = {"num_views": item.views, "num_frames": item.num_frames, "stride": item.stride}
        try:
            if self._settings is not None:
                known = {name: self._settings[name] for name in InputSpec.model_fields}
                return InputSpec.model_validate({**known, **changes})
            return InputSpec.model_validate({**load_registry()[item.model].input.model_dump(), **changes})
        except (VidclsError, ValueError, KeyError, TypeError):
            return None


def _spread(length: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` numbers below ``length``, evenly spread from the first to the last."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)
