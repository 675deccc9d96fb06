"""Ten ways in which a clip can be broken, and a command line on which three of them really happen."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.clips import make_audio, make_clip

ROOT = Path(__file__).parents[2]
CLASSES = 10


def make_checkpoint(path: Path, architecture: str = "vivit-fe") -> Path:
    """Save a tiny model whose classes have clearly different scores."""
    import torch

    from vidcls.checkpoints import save_checkpoint
    from vidcls.config import load_registry
    from vidcls.models import build

    spec = load_registry()[f"{architecture}-tiny"]
    torch.manual_seed(0)
    model = build(spec.architecture, **spec.config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh head is zero: all clips would look the same
            torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)
    save_checkpoint(model, path, labels=tuple(f"label {i}" for i in range(CLASSES)))
    return path


def truncated(path: Path, good: bytes) -> None:
    path.write_bytes(good[: len(good) // 2])


def bit_flipped(path: Path, good: bytes) -> None:
    data = np.frombuffer(good, np.uint8).copy()
    places = np.random.default_rng(0).choice(len(data), len(data) // 8, replace=False)
    data[places] ^= np.uint8(1) << np.random.default_rng(1).integers(0, 8, len(places)).astype(np.uint8)
    path.write_bytes(data.tobytes())


def empty(path: Path, good: bytes) -> None:
    path.touch()


def text(path: Path, good: bytes) -> None:
    path.write_text("there is no video in here\n" * 40)


def audio_only(path: Path, good: bytes) -> None:
    make_audio(path)


def zero_length(path: Path, good: bytes) -> None:
    """Write a sound container with a video stream of no frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        container.start_encoding()


def wrong_suffix(path: Path, good: bytes) -> None:
    """Write an archive under a video's name; a picture would be a clip of one frame."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip.mp4", good)


def unharmed(path: Path, good: bytes) -> None:
    path.write_bytes(good)  # `faulty_main` breaks it when it is read


WAYS: dict[str, Callable[[Path, bytes], None]] = {
    "truncated": truncated,
    "bit-flipped": bit_flipped,
    "empty": empty,
    "text": text,
    "audio-only": audio_only,
    "zero-length": zero_length,
    "hanging": unharmed,
    "wrong-suffix": wrong_suffix,
    "locked": unharmed,
    "vanishing": unharmed,
}


def make_clips(folder: Path, good: int, bad: int) -> tuple[list[Path], list[Path]]:
    """Write good clips, all different, and broken ones, in turn in each way."""
    goods = [
        make_clip(folder / f"{i % 3}" / f"good{i:03}.mp4", 20 + i % 40, size=(72, 96), gop=8)
        for i in range(good)
        if (folder / f"{i % 3}").mkdir(parents=True, exist_ok=True) is None
    ]
    bads = []
    for i in range(bad):
        name, way = list(WAYS.items())[i % len(WAYS)]
        path = folder / f"{i % 3}" / f"{name}{i:03}.mp4"
        way(path, goods[i % len(goods)].read_bytes())
        bads.append(path)
    return goods, bads


def command(*arguments: str) -> list[str]:
    """Return a `vidcls` command line on which clips hang, are locked and vanish, as their names say."""
    return [sys.executable, "-m", "tests.score.faulty_main", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=600, env=environment(**more), cwd=ROOT
    )


def run_and_kill(arguments: Sequence[str], grown: Path, after: float, **more: str) -> bool:
    """Start the command, and kill it ``after`` seconds after it has begun to write; False: it was faster."""
    size = grown.stat().st_size if grown.exists() else -1
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(**more),
        cwd=ROOT,
    ) as process:
        while process.poll() is None and (not grown.exists() or grown.stat().st_size <= size):
            time.sleep(0.01)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        return process.wait() < 0


def survive(arguments: Sequence[str], grown: Path, kills: int, seed: int, most: float, **more: str) -> int:
    """Kill the command several times at random moments, then let it end; return how often it was killed."""
    chance = random.Random(seed)
    killed = sum(run_and_kill(arguments, grown, chance.uniform(0, most), **more) for _ in range(kills))
    done = run(*arguments, **more)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return killed


def check_rows(
    rows: list[dict[str, Any]], goods: list[Path], bads: list[Path], predicted: list[dict[str, Any]]
) -> None:
    """Hold rows to the inputs: each once, the good ones as `vidcls predict` says, the bad ones with their error."""
    paths = [row["path"] for row in rows]
    assert len(set(paths)) == len(paths), "a clip has two rows"
    assert set(paths) == {str(path) for path in (*goods, *bads)}, "a clip has no row, or a row no clip"
    by_path = {row["path"]: row for row in rows}
    for expected in predicted:
        row = by_path[expected["path"]]
        assert row["error"] is None, row["error"]
        assert row["error_kind"] is None
        assert row["seconds"] > 0
        for key, value in expected.items():
            if key != "predictions":
                assert row[key] == value, key
        ours, theirs = row["predictions"], expected["predictions"]
        assert [p["label"] for p in ours] == [p["label"] for p in theirs]
        assert np.allclose([p["score"] for p in ours], [p["score"] for p in theirs], atol=1e-5)
    assert len(predicted) == len(goods)
    kinds = {
        "empty": "empty",
        "text": "not_a_video",
        "audio-only": "no_video_stream",
        "hanging": "timeout",
        "locked": "permission",
        "vanishing": "not_found",
    }
    for path in bads:
        row = by_path[str(path)]
        assert row["error"].startswith(f"{path}: "), path
        assert row["predictions"] == []
        wanted = kinds.get(path.stem.rstrip("0123456789"))
        assert wanted is None or row["error_kind"] == wanted, (path, row["error_kind"])


def predict(goods: list[Path], checkpoint: Path) -> list[dict[str, Any]]:
    """Return what `vidcls predict` says of the good clips."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "vidcls",
            "predict",
            *map(str, goods),
            "--weights",
            str(checkpoint),
            "-f",
            "jsonl",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
