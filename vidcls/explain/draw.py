"""Explanations as pictures: heat over frames with a scale, and the weight of each moment as a strip. Uses PIL alone."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Floats
from vidcls.errors import printable

if TYPE_CHECKING:
    from vidcls.explain.explanation import Explanation

Pixels = NDArray[np.uint8]
TILE = 112  # pixels of a frame's shorter side at least
GAP, STRIP, LINE = 6, 26, 18  # pixels
MARGIN = 12
INK, PAPER, FAINT = (30, 30, 30), (255, 255, 255), (225, 225, 225)
# Anchors of matplotlib's inferno, from cold to hot.
COLORS = np.array(
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ]
)
UNITS = {"occlusion": "log-odds lost"}


def colors(values: Floats) -> Pixels:
    """Color values 0 to 1, (...) → (..., 3)."""
    place = np.clip(np.nan_to_num(values), 0, 1) * (len(COLORS) - 1)
    low = np.minimum(place.astype(int), len(COLORS) - 2)
    part = (place - low)[..., None]
    return (COLORS[low] * (1 - part) + COLORS[low + 1] * part).round().astype(np.uint8)


def overlay(frame: Pixels, heat: Floats) -> Pixels:
    """Lay heat (h, w) from 0 to 1 over a frame (h', w', 3): the picture turns gray, and the hotter the more colored."""
    from PIL import Image

    height, width = frame.shape[:2]
    smooth = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(smooth), 0, 1)[..., None]
    gray = frame.mean(-1, keepdims=True).repeat(3, -1) * 0.75
    mixed: NDArray[Any] = gray * (1 - 0.75 * strength) + colors(strength[..., 0]) * 0.75 * strength
    return np.clip(mixed, 0, 255).astype(np.uint8)


def top_of(explanation: Explanation) -> float:
    """The heat that is drawn hottest."""
    return max(float(explanation.heat.max()), 1e-30)


def tile(explanation: Explanation, view: int, frame: int) -> Any:
    """One frame with its heat, as a picture."""
    from PIL import Image

    steps, count = explanation.heat.shape[1], explanation.frames.shape[1]
    heat = explanation.heat[view, min(frame * steps // count, steps - 1)] / top_of(explanation)
    picture = explanation.frames[view, frame]
    scale = max(1, -(-TILE // min(picture.shape[:2])))
    big = Image.fromarray(picture).resize(
        (picture.shape[1] * scale, picture.shape[0] * scale), Image.Resampling.BICUBIC
    )
    return Image.fromarray(overlay(np.asarray(big), heat))


def contact_sheet(explanation: Explanation, columns: int = 8) -> Any:
    """Draw up to ``columns`` frames of each view, a strip of the weight of each moment below them, and a scale."""
    from PIL import Image, ImageDraw

    views, count = explanation.frames.shape[:2]
    shown = np.linspace(0, count - 1, min(columns, count)).round().astype(int)
    width, height = tile(explanation, 0, 0).size
    row = height + STRIP + LINE + GAP
    head = MARGIN + 2 * LINE
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + max(len(shown) * (width + GAP), 460), head + views * row + STRIP + LINE + MARGIN),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    font = _font()
    title = f"{_short(explanation.path)}: {printable(explanation.label)} {explanation.score:.3f}"
    draw.text((MARGIN, MARGIN), title, INK, font)
    draw.text((MARGIN, MARGIN + LINE), f"{explanation.method}, {printable(explanation.model)}", INK, font)
    for view in range(views):
        top = head + view * row
        for place, frame in enumerate(shown):
            left = MARGIN + place * (width + GAP)
            sheet.paste(tile(explanation, view, int(frame)), (left, top))
            draw.text((left, top + height), f"{explanation.times[view, frame]:.2f} s", INK, font)
        strip = (MARGIN, top + height + LINE, len(shown) * (width + GAP) - GAP, STRIP - 4)
        _strip(draw, explanation.frame_weights[view], strip)
    _scale(sheet, explanation, head + views * row)
    return sheet


def _strip(draw: Any, weights: Floats, box: tuple[int, int, int, int]) -> None:
    """Bars of the weight of each moment in a box (left, top, width, height)."""
    left, top, width, height = box
    draw.rectangle((left, top, left + width, top + height), fill=FAINT)
    edges = np.linspace(left, left + width, len(weights) + 1)
    tallest = max(float(weights.max()), 1e-30)
    for weight, a, b in zip(weights, edges[:-1], edges[1:], strict=True):
        high = height * float(weight) / tallest
        color = tuple(int(one) for one in colors(np.array(weight / tallest, np.float32)))
        draw.rectangle((a + 0.5, top + height - high, b - 1.5, top + height), fill=color)


def _scale(sheet: Any, explanation: Explanation, top: int) -> None:
    from PIL import Image, ImageDraw

    draw, font = ImageDraw.Draw(sheet), _font()
    bar = colors(np.linspace(0, 1, 200, dtype=np.float32)[None].repeat(STRIP // 2, 0))
    sheet.paste(Image.fromarray(bar), (MARGIN, top + 4))
    most = top_of(explanation)
    unit = UNITS.get(explanation.method)
    text = f"{most:.2f} {unit}" if unit else f"{100 * most:.2g} % of a view's heat in one cell"
    draw.text((MARGIN, top + STRIP // 2 + 4), "0", INK, font)
    draw.text((MARGIN + 206, top + 2), text, INK, font)
    draw.text((MARGIN + 100, top + STRIP // 2 + 4), "bars: share of each moment", INK, font)


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(12)


def _short(path: str) -> str:
    shown = printable(path)
    return shown if len(shown) <= 48 else f"…{shown[-47:]}"


def _animation(explanation: Explanation) -> list[Any]:
    """The frames of all views, one view after the other, with the moment marked in the strip."""
    from PIL import Image, ImageDraw

    found = []
    views, count = explanation.frames.shape[:2]
    for view in range(views):
        for frame in range(count):
            picture = tile(explanation, view, frame)
            width, height = picture.size
            whole = Image.new("RGB", (width + width % 2, (height + STRIP) // 2 * 2), PAPER)
            whole.paste(picture, (0, 0))
            draw = ImageDraw.Draw(whole)
            _strip(draw, explanation.frame_weights[view], (0, height + 2, width - 1, STRIP - 5))
            at = (frame + 0.5) * width / count
            draw.line((at, height + 2, at, height + STRIP), fill=(0, 120, 255), width=2)
            found.append(whole)
    return found


def _rate(explanation: Explanation) -> float:
    """Frames a second at which a view is shown as fast as it was filmed, 2 to 30."""
    step = float(np.median(np.diff(explanation.times, axis=1))) if explanation.times.shape[1] > 1 else 0.0
    return min(30.0, max(2.0, 1 / step)) if step > 0 else 5.0


def write_gif(explanation: Explanation, file: BinaryIO) -> None:
    """Write the animation as a GIF that repeats."""
    first, *others = _animation(explanation)
    duration = round(1000 / _rate(explanation))
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)


def write_mp4(explanation: Explanation, file: BinaryIO) -> None:
    """Write the animation as H.264."""
    import av

    pictures = _animation(explanation)
    with av.open(file, "w", format="mp4") as container:
        rate = Fraction(_rate(explanation)).limit_denominator(1001)
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
