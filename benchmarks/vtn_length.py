"""How VTN's time and memory grow with the length of a video: ``python benchmarks/vtn_length.py``.

Three tables, each measurement in a process of its own so that its peak memory is its own:

1. the temporal encoder and classifier at full size (26.8 M and 0.9 M parameters) over stored features;
2. the same weights with attention through n × n masks, the baseline, as far as it is bearable;
3. a whole video in pieces (`VTN.encode_stream`) with a small backbone on small frames, so that what is seen is
   the growth and not the backbone.

Memory is what the process holds at its peak beyond what it held once the model was built. Below each table stands
the exponent p of the least-squares fit seconds ~ frames^p: 1 is linear, 2 quadratic. It is fitted to processor
time, which does not depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcls.models import longformer
from vidcls.models.longformer import LongformerAttention
from vidcls.models.vtn import VTN, VTNConfig

WAYS = {
    "banded": "temporal encoder and classifier over stored features",
    "dense": "the same through n × n masks",
    "stream": "a video in pieces of 50 frames, deit-tiny at 64 pixels",
}
PIECE = 50


def peak_bytes() -> int:
    """Most memory that this process has held so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def attend_densely(self: LongformerAttention, x: Tensor) -> Tensor:
    """`LongformerAttention.attend_local`, written with one mask over all pairs of tokens."""
    tokens = torch.arange(x.shape[1])
    mask = (tokens[:, None] - tokens).abs() <= self.half_window
    mask[:, 0] = True
    q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q[:, :, 1:], k, v, attn_mask=mask[1:])
    return self.merge_heads(mixed.transpose(1, 2).flatten(2))


def pieces(frames: int) -> Iterator[Tensor]:
    """Yield a video piece by piece, as a decoder would."""
    for start in range(0, frames, PIECE):
        yield torch.rand(1, 3, min(PIECE, frames - start), 64, 64)


def prepare(way: str, frames: int) -> Callable[[], Tensor]:
    """Build the model and return what is to be measured."""
    torch.manual_seed(0)
    if way == "stream":
        stream = VTN(VTNConfig(backbone="deit-tiny", image_size=64)).eval()
        return lambda: stream.classify(stream.encode_stream(pieces(frames)))
    # Stored features need no backbone: only its width, here ViT-B's, matters.
    model = VTN(VTNConfig(backbone={"embed_dim": 768, "depth": 0})).eval()
    features = torch.randn(1, frames, 768)
    if way == "dense":
        expected = model.classify(features[:, :100])
        LongformerAttention.attend_local = attend_densely  # type: ignore[method-assign]
        longformer.SEGMENT = frames  # all frames at once
        assert torch.allclose(model.classify(features[:, :100]), expected, atol=1e-5)
    return lambda: model.classify(features)


def measure(way: str, frames: int, threads: int, repeat: int) -> dict[str, float]:
    """Wall and processor seconds (best of ``repeat``) and peak memory of one way at one length."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        run = prepare(way, frames)
        before = peak_bytes()
        wall = processor = math.inf
        for _ in range(repeat):
            start, start_processor = time.perf_counter(), time.process_time()
            run()
            wall = min(wall, time.perf_counter() - start)
            processor = min(processor, time.process_time() - start_processor)
    return {"wall": wall, "processor": processor, "bytes": peak_bytes() - before}


def exponent(lengths: list[int], values: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    xs, ys = [math.log(n) for n in lengths], [math.log(value) for value in values]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return slope / sum((x - x_mean) ** 2 for x in xs)


def in_own_process(way: str, frames: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", way, str(frames)]
    command += ["--threads", str(options.threads), "--repeat", str(options.repeat)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(way: str, lengths: list[int], options: argparse.Namespace) -> dict[int, float]:
    """Print one table and return the processor seconds by length."""
    print(f"\n{WAYS[way]} ({options.threads} thread{'s' * (options.threads > 1)})")
    print(f"{'frames':>8} {'wall s':>9} {'CPU s':>9} {'CPU ms/frame':>13} {'peak MiB':>9}")
    seconds: dict[int, float] = {}
    for frames in lengths:
        result = in_own_process(way, frames, options)
        seconds[frames] = result["processor"]
        per_frame, mib = 1000 * result["processor"] / frames, result["bytes"] / 2**20
        print(
            f"{frames:8d} {result['wall']:9.3f} {result['processor']:9.3f} {per_frame:13.3f} {mib:9.0f}",
            flush=True,
        )
    if len(lengths) > 1:
        print(f"CPU seconds ~ frames^{exponent(lengths, list(seconds.values())):.2f}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[250, 1000, 4000, 16000])
    parser.add_argument(
        "--dense-up-to", type=int, default=4000, help="frames; its memory grows with the square"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FRAMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, frames = options.one
        print(json.dumps(measure(way, int(frames), options.threads, options.repeat)))
        return
    banded = table("banded", options.lengths, options)
    dense = table("dense", [n for n in options.lengths if n <= options.dense_up_to], options)
    for frames, seconds in dense.items():
        print(f"{frames:8d} frames: n × n masks take {seconds / banded[frames]:.2f} times the CPU time")
    table("stream", options.lengths, options)


if __name__ == "__main__":
    main()
