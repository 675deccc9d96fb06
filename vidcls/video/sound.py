"""The sound of a file as plain samples. Runs in the decode worker only (`vidcls.video.worker`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from vidcls.video.container import open_container

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # that AAC has


def read_sound(path: str, stream_index: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the best sound stream: its ``rate``, ``start`` in seconds from the first picture, float32 samples (c, n).

    Damaged packets are skipped; a file without sound yields nothing.

    Args:
        path: The file.
        stream_index: The video stream that is read.

    Raises:
        VideoError: The file cannot be opened.
    """
    with open_container(path) as container:
        video, stream = container.streams[stream_index], container.streams.best("audio")
        if stream is None or stream.codec_context is None or not stream.codec_context.sample_rate:
            return
        begin = float((video.start_time or 0) * (video.time_base or 0))
        rate = min(RATES, key=lambda known: abs(known - stream.codec_context.sample_rate))
        layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                continue
            for frame in frames:
                for ready in resampler.resample(frame):
                    start = float((ready.pts or 0) * (ready.time_base or 0))
                    yield {"rate": rate, "start": start - begin}, ready.to_ndarray()
