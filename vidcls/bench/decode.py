"""Which decoder reads a clip fastest, for all frames that a model's views want, and for one view in the middle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Any

import numpy as np

from vidcls.bench.timing import Timing, measure
from vidcls.config import InputSpec
from vidcls.errors import VideoError
from vidcls.video.reader import VideoReader
from vidcls.views.transform import frame_transform, plan_clips

HEADINGS = ("decoder", "frames", "of", "median s", "p90 s", "±", "frames/s", "notes")
STEPS = 8  # four decoders, all frames and those of one view


def decode(
    clip: str,
    spec: InputSpec,
    notify: Callable[[str], object] = lambda text: None,
    *,
    spread: float,
    seconds: float,
    least: int | None = None,
) -> list[dict[str, Any]]:
    """Time each decoder on a clip.

    decord and PyAV as vidcls runs them, in a process, with the resize; PyAV from the start to the last frame wanted;
    and torchcodec where it is installed.

    Raises:
        VideoError: No decoder can read it.
    """
    rows: list[dict[str, Any]] = []
    with VideoReader() as reader:
        info = reader.open(clip)
    plan = plan_clips(
        spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps, target_fps="auto"
    )
    middle = np.unique(plan.indices[len(plan.indices) // 2])
    limits: dict[str, Any] = {"spread": spread, "seconds": seconds, "least": least}
    for decoder in ("decord", "pyav"):
        for indices in (plan.unique, middle):
            notify(f"{decoder}: {len(indices)} frames")
            run = partial(_by_reader, clip, decoder, indices, spec, limits)
            rows.append(_row(f"vidcls, {decoder}", indices, info.num_frames, run))
    for indices in (plan.unique, middle):
        for other, read in (("pyav, sequential", _sequential), ("torchcodec", _torchcodec)):
            notify(f"{other}: {len(indices)} frames")
            run = partial(measure, partial(read, clip, indices), **limits)
            rows.append(_row(other, indices, info.num_frames, run))
    return rows


def _row(decoder: str, indices: np.ndarray, total: int, run: Callable[[], Timing]) -> dict[str, Any]:
    row = {"decoder": decoder, "frames": len(indices), "of": total, "failed": None}
    try:
        return row | {"seconds": run()._asdict()}
    except ImportError:
        failed = "not installed"
    except (VideoError, OSError, RuntimeError, ValueError) as error:
        failed = str(error).strip().partition("\n")[0][:200]
    return row | {"seconds": None, "failed": failed}


def _by_reader(
    clip: str, decoder: str, indices: np.ndarray, spec: InputSpec, limits: dict[str, Any]
) -> Timing:
    transform = frame_transform(spec)
    with VideoReader(decoder) as reader:
        reader.open(clip)  # the process is warm, the file in the cache: only reading is measured

        def read() -> None:
            reader.open(clip)
            reader.read(indices, transform)

        return measure(read, **limits)


def _sequential(clip: str, indices: np.ndarray) -> None:
    """Decode from the first frame to the last one wanted, in this process: the plainest way there is."""
    import av

    wanted = set(indices.tolist())
    with av.open(clip) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frame.to_ndarray(format="rgb24")
            if number >= indices[-1]:
                return


def _torchcodec(clip: str, indices: np.ndarray) -> None:
    resolve_name("torchcodec.decoders:VideoDecoder")(clip).get_frames_at(indices.tolist())


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row as text."""
    seconds = row["seconds"]
    head = (row["decoder"], str(row["frames"]), str(row["of"]))
    if seconds is None:
        return (*head, "-", "-", "-", "-", row["failed"])
    return (
        *head,
        f"{seconds['median']:.4f}",
        f"{seconds['p90']:.4f}",
        f"{100 * seconds['spread']:.0f} %",
        f"{row['frames'] / seconds['median']:.0f}",
        "",
    )
