"""An hour of video through VTN, and the memory that it takes: ``python benchmarks/vtn_hour.py``.

A file of an hour at 25 frames/s is made (64 pixels, a few MB), and `whole_video` sees every frame:
decoding, backbone, and one temporal pass over 90,000 frames. The model is the registry's ``vtn-tiny``, so that the time
can be borne: what is shown is that memory does not grow with the length but by the features, 256 bytes a frame here
and 3 kB with ViT-B. What the temporal pass takes at full width is in ``benchmarks/vtn_length.py --lengths 90000``.
Each length runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

FPS, SIDE = 25, 64


def make_video(path: Path, seconds: int) -> None:
    """Write a video of gray waves that move; most of it is left to the codec's prediction."""
    import av
    import numpy as np

    x = np.arange(SIDE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "40"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 250
        stream.codec_context.time_base = Fraction(1, FPS)
        planes = np.full((SIDE * 3 // 2, SIDE), 128, np.uint8)
        for number in range(seconds * FPS):
            planes[:SIDE] = 128 + 100 * np.sin((x + number) / (8 + number / 10000))
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(video: Path) -> dict[str, float]:
    """Seconds and peak memory of one whole video, the decoding process not counted."""
    import resource

    import torch

    from vidcls.config import load_registry
    from vidcls.engines import make_engine
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.whole_video import WholeVideo
    from vidcls.models import build
    from vidcls.video.reader import VideoReader

    torch.manual_seed(0)
    spec = load_registry()["vtn-tiny"]
    engine = make_engine(build("vtn", **spec.config).eval(), "cpu", "fp32", "eager")
    labels = tuple(map(str, range(spec.config["num_classes"])))
    scale = 1 if sys.platform == "darwin" else 1024
    with VideoReader() as reader:
        classifier = Classifier(
            engine, spec, labels, weights="random", reader=reader, uses_frame_indices=True
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        start = time.perf_counter()
        whole = WholeVideo(classifier, reader=reader)
        features, plan = whole.features(video)
        encoded = time.perf_counter()
        encode_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        logits = whole.logits(features, plan)
        done = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        assert logits.shape == (1, len(labels))
        worker = reader._worker
        assert worker is not None
        decoder = worker._resident()
    return {
        "frames": plan.indices.size,
        "features_s": encoded - start,
        "time_s": done - encoded,
        "model_bytes": before,
        "features_bytes": encode_peak,
        "peak_bytes": peak,
        "decoder_bytes": decoder,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, nargs="+", default=[6, 60])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    print(
        f"{'min':>4} {'frames':>7} {'decode+backbone':>16} {'temporal pass':>14} {'model MiB':>10} "
        f"{'+ features':>11} {'peak MiB':>9} {'decoder MiB':>12}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            video = Path(folder) / f"{minutes}.mp4"
            make_video(video, 60 * minutes)
            command = [sys.executable, __file__, "--one", str(video)]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            mib = {key: value / 2**20 for key, value in found.items() if key.endswith("_bytes")}
            print(
                f"{minutes:4d} {found['frames']:7,d} {found['features_s']:14.1f} s {found['time_s']:12.1f} s "
                f"{mib['model_bytes']:10.0f} {mib['features_bytes']:11.0f} {mib['peak_bytes']:9.0f} "
                f"{mib['decoder_bytes']:12.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
