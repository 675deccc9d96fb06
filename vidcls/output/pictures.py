"""Frames → small pictures that stand inside a page, as strips of JPEG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vidcls.video.reader import VideoInfo

HEIGHT = 72  # pixels of a picture
WIDTHS = (40, 160)  # pixels of a picture at least and at most, whatever the video's shape is
QUALITY = 72  # of JPEG


@dataclass(frozen=True)
class Shrink:
    """Shrink a frame (h, w, 3) to a fixed size; plain values, to be sent to a decoding process.

    Attributes:
        width: Pixels.
        height: Pixels.
    """

    width: int
    height: int = HEIGHT

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame at that size, averaged over the pixels that fall together."""
        from PIL import Image

        size = (self.width, self.height)
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def shrink_for(info: VideoInfo) -> Shrink:
    """Return what makes pictures of a video's shape."""
    width = round(HEIGHT * info.width / max(info.height, 1))
    return Shrink(min(max(width, WIDTHS[0]), WIDTHS[1]))


def jpeg_of(frames: NDArray[np.uint8]) -> bytes:
    """Return frames (t, h, w, 3) side by side as one JPEG (h, t * w)."""
    from PIL import Image

    buffer = io.BytesIO()
    strip = Image.fromarray(np.concatenate(list(frames), axis=1))
    strip.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def png_of(picture: Any) -> bytes:
    """Return a picture of PIL as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "jpeg") -> str:
    """Return a picture's address that holds the picture itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
