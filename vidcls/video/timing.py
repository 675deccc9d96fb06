"""When each frame is shown: a file's timestamps where they can be trusted, its declared frame rate where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from vidcls.video.packets import MISSING

FPS_RANGE = (0.1, 1000.0)  # frames a second beyond which a file's times are not believed without a word
_DECLARED = (
    0.1,
    300.0,
)  # frames a second; ASF and others declare their clock's ticks where they know no rate
USUAL_FPS = 25.0  # taken where a file says nothing

_SLOWEST = 1 / 3600  # frames a second; a frame an hour may be a time lapse
_JUMP = 10.0  # seconds; ffmpeg's -dts_delta_threshold, beyond which it closes a gap too
_GAP = 1.0  # seconds, and
_GAP_STEPS = 25  # usual steps that a gap has at least: the slides of a slide show are none
_REPEAT = 0.0015  # seconds; two frames that are nearer have the same time, give or take a muxer's tick
_CONTINUOUS = (
    "mov",
    "matroska",
    "nut",
    "ogg",
)  # containers whose times are meant even where they stand still long

Seconds = npt.NDArray[np.float64]


@dataclass
class Timing:
    """Attributes: seconds (n,) from the first frame; fps, the mean; variable, spaced unevenly; duration in seconds."""

    seconds: Seconds
    fps: float
    variable: bool
    duration: float
    warnings: list[str] = field(default_factory=list)

    @property
    def repaired(self) -> bool:
        """Whether the times are others than the file's."""
        return bool(self.warnings)


def frame_times(
    stamps: npt.NDArray[np.int64],
    base: Fraction,
    rates: Sequence[float],
    container: str,
    guessed: bool = False,
    joins: int = 0,
) -> Timing:
    """Seconds of each frame from the first, and the frame rate.

    Args:
        stamps: (n,) timestamps in the order in which frames are shown, or `MISSING`.
        base: Seconds of a timestamp's unit.
        rates: Frame rates that the file declares, the most trusted first; 0 where it does not.
        container: FFmpeg's name of the container.
        guessed: The container has no times of presentation: what stands in ``stamps`` is a guess.
        joins: How often the times of decoding go back, where those of presentation are a guess.
    """
    declared = [float(rate) for rate in rates if _DECLARED[0] <= rate <= _DECLARED[1]]
    missing = int((stamps == MISSING).sum())
    if guessed or missing:
        have = "frame has" if missing == 1 else "frames have"
        warned = [f"{missing} {have} no time"] if missing and not guessed else []
        if guessed and joins:
            warned = [f"its times go back {_times(joins)}"]
        return _counted(len(stamps), declared, 0.0, float(base), warned)
    exact = stamps.astype(np.longdouble)
    seconds = ((exact - exact[0]) * float(base)).astype(np.float64)
    if len(stamps) == 1:
        fps = declared[0] if declared else USUAL_FPS
        return Timing(seconds, fps, False, 1 / fps)
    return _judged(seconds, float(base), declared, container)


def _judged(seconds: Seconds, tick: float, declared: list[float], container: str) -> Timing:
    steps = np.diff(seconds)
    continuous = any(name in container for name in _CONTINUOUS)
    usual = _usual_step(steps)
    if usual > _JUMP and declared and not continuous:
        usual = 1 / declared[0]
    repeats = (steps < min(_REPEAT, 0.1 * usual)) if usual else np.ones(len(steps), bool)
    jumps = _jumps(steps, usual, tick, continuous)
    backward = steps < -_REPEAT
    if not (repeats.any() or jumps.any()):
        return _trusted(seconds, tick, declared, [])
    problems = []
    if 10 * backward.sum() > len(seconds):
        return _counted(
            len(seconds), declared, 0.0, tick, [f"its times go back {_times(int(backward.sum()))}"]
        )
    if backward.any():
        problems.append(
            f"its times go back {_times(int(backward.sum()))}: the parts were put one after the other"
        )
    if jumps.any():
        problems.append(
            f"its times jump {_times(int(jumps.sum()))} by {steps[jumps].sum():,.0f} s in all: closed"
        )
    repeats &= ~backward
    steps = np.where(jumps | backward, usual, steps)
    if repeats.any():
        return _without_repeats(steps, repeats, usual, tick, declared, problems)
    return _trusted(np.concatenate([[0.0], np.cumsum(steps)]), tick, declared, problems)


def _without_repeats(
    steps: Seconds,
    repeats: npt.NDArray[np.bool_],
    usual: float,
    tick: float,
    declared: list[float],
    problems: list[str],
) -> Timing:
    """Frames counted where they are evenly spaced but for the repeats, else spread between their neighbors."""
    count = len(steps) + 1
    have = "frame has" if repeats.sum() == 1 else "frames have"
    problem = f"{int(repeats.sum())} {have} the time of the one before"
    uneven = _uneven(steps[~repeats], usual, tick).sum()
    if uneven <= repeats.sum() or 5 * repeats.sum() > count:
        return _counted(count, declared, usual, tick, [*problems, problem])
    kept = np.concatenate([[True], ~repeats])
    times = np.concatenate([[0.0], np.cumsum(np.where(repeats, 0.0, steps))])
    if not kept[-1]:
        kept[-1] = True
        times[-1] += usual
    places = np.arange(count)
    spread = np.interp(places, places[kept], times[kept])
    return _trusted(spread, tick, declared, [*problems, f"{problem}: spread between their neighbors"])


def _usual_step(steps: Seconds) -> float:
    """Median of the steps that frames of a video may have, in seconds; 0 where there are none."""
    good = steps[(steps >= 1 / FPS_RANGE[1]) & (steps <= _JUMP)]
    if not len(good):
        good = steps[steps >= 1 / FPS_RANGE[1]]
    return float(np.median(good)) if len(good) and 10 * len(good) >= len(steps) else 0.0


def _jumps(steps: Seconds, usual: float, tick: float, continuous: bool) -> npt.NDArray[np.bool_]:
    """Which steps are jumps of a clock, or gaps so long that a clip would show little but the frame before them.

    Where frames are evenly spaced otherwise, that is a quarter of the rest of the file, else as much as the rest.
    """
    far: npt.NDArray[np.bool_] = steps > max(_GAP, _GAP_STEPS * usual)
    if not far.any():
        return far
    rest = steps[~far & (steps > 0)]
    even = not _uneven(rest, usual, tick).any()
    limit = (0.25 if even else 1.0) * rest.sum()
    far &= steps > (limit if continuous else min(limit, _JUMP))
    return far


def _uneven(steps: Seconds, usual: float, tick: float) -> npt.NDArray[np.bool_]:
    return np.abs(steps - usual) > max(0.1 * usual, 1.5 * tick)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _counted(count: int, declared: list[float], usual: float, tick: float, problems: list[str]) -> Timing:
    """Frames counted at the declared rate, or at that of their usual step."""
    fps = _declared_near(declared, 1 / usual, min(0.02, 0.002 + 1.5 * tick / usual)) if usual else None
    known = [fps or 1 / usual] if usual else declared
    rate = known[0] if known else USUAL_FPS
    warnings = list(problems)
    if problems:
        warnings[-1] += f": frames are counted at {rate:.5g} frames a second"
    elif not known:
        warnings.append(f"no frame times and no frame rate: {rate:g} frames a second assumed")
    return Timing(np.arange(count) / rate, rate, False, count / rate, warnings)


def _declared_near(declared: list[float], fps: float, tolerance: float) -> float | None:
    nearest = min(declared, key=lambda rate: abs(rate - fps), default=0.0)
    return nearest if abs(nearest - fps) < tolerance * fps else None


def _trusted(seconds: Seconds, tick: float, declared: list[float], warnings: list[str]) -> Timing:
    count = len(seconds)
    steps = np.diff(seconds)
    middle = float(np.median(steps))
    variable = bool(_uneven(steps, middle, tick).any())
    fps = float((count - 1) / seconds[-1])
    # Containers that round times (Matroska: to milliseconds) still declare the exact rate.
    if not variable:
        fps = _declared_near(declared[:1], fps, 0.01) or fps
    if fps < _SLOWEST:
        return _counted(count, declared, 0.0, tick, [*warnings, f"its times give {fps:.2g} frames a second"])
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        warnings = [*warnings, f"its times give {fps:.4g} frames a second: they may be wrong"]
    return Timing(seconds, fps, variable, float(seconds[-1]) + middle, warnings)
