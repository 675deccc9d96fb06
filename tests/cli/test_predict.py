"""`vidcls predict`, through the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clips import make_audio, make_clip

CLASSES = 7
SHARED_VIDEOS = Path(__file__).parents[3] / "shared" / "videos"


def vidcls(
    *arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vidcls", *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=280,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **(env or {})},
    )


def make_hf_vivit(folder: Path, **sizes: Any) -> Path:
    """Write a ViViT with random weights as transformers writes it, with its preprocessor."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.VivitConfig(num_labels=CLASSES, **sizes)
    config.id2label = {i: f"label {i}" for i in range(CLASSES)}
    model = transformers.VivitForVideoClassification(config)
    for parameter in model.parameters():  # zero biases and tiny weights would hide mistakes
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)
    model.save_pretrained(folder)
    crop = config.image_size
    transformers.VivitImageProcessor(
        size={"shortest_edge": crop * 8 // 7}, crop_size={"height": crop, "width": crop}, do_normalize=False
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hf_vivit(
        tmp_path_factory.mktemp("hf") / "tiny-vivit",
        image_size=32,
        num_frames=8,
        tubelet_size=[2, 8, 8],
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 60, size=(72, 96))


def reference_scores(
    folder: Path, frames: dict[int, np.ndarray], indices: Sequence[Sequence[int]]
) -> np.ndarray:
    """What transformers itself says: its processor and model on the frames at ``indices``, logits averaged."""
    import torch
    import transformers

    processor = transformers.VivitImageProcessor.from_pretrained(folder)
    model = transformers.VivitForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [
            model(**processor([frames[i] for i in view], return_tensors="pt")).logits[0] for view in indices
        ]
        return torch.stack(logits).mean(0).softmax(-1).numpy()


def decode_all(video: Path) -> dict[int, np.ndarray]:
    """Every frame of a sound file, without any code of vidcls."""
    import av

    with av.open(str(video)) as container:
        return {i: frame.to_ndarray(format="rgb24") for i, frame in enumerate(container.decode(video=0))}


def scores_of(row: dict[str, Any]) -> np.ndarray:
    scores = np.zeros(len(row["predictions"]))
    for item in row["predictions"]:
        scores[item["index"]] = item["score"]
    return scores


def close_logits(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Compare logits up to the constant that a softmax loses."""
    a, b = np.log(ours), np.log(theirs)
    return bool(np.abs((a - a.mean()) - (b - b.mean())).max() < tolerance)


def test_equals_transformers(checkpoint: Path, clip: Path) -> None:
    done = vidcls(
        "predict", str(clip), "--weights", str(checkpoint), "-f", "json", "-k", "7", "--fps", "native"
    )
    assert done.returncode == 0, done.stderr.decode()
    (row,) = json.loads(done.stdout)
    # 60 frames, 8 of them at stride 2 from four offsets: trunc(linspace(0, 44, 4))
    indices = [[start + 2 * i for i in range(8)] for start in (0, 14, 29, 44)]
    theirs = reference_scores(checkpoint, decode_all(clip), indices)
    assert close_logits(scores_of(row), theirs)
    assert [p["index"] for p in row["predictions"]] == np.argsort(-theirs).tolist()
    assert [p["rank"] for p in row["predictions"]] == list(range(1, 8))
    assert row["predictions"][0]["label"] == f"label {row['predictions'][0]['index']}"
    assert list(row) == [
        *("path", "model", "weights", "views", "crops", "frames", "stride", "fps", "duration", "decoder"),
        *("predictions", "warnings", "error"),
    ]
    assert (row["path"], row["views"], row["crops"], row["frames"], row["stride"]) == (
        str(clip),
        4,
        1,
        8,
        2,
    )
    assert (row["fps"], row["duration"], row["error"], row["warnings"]) == (25.0, 2.4, None, [])
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="the shared clips are not beside this checkout")
def test_base_model_on_every_shared_clip(tmp_path: Path) -> None:
    """ViViT-B as released, random weights: top-5 and logits equal to transformers on the same frames."""
    from vidcls.config import InputSpec
    from vidcls.video.reader import VideoReader
    from vidcls.views.sampling import plan_clips

    folder = make_hf_vivit(tmp_path / "vivit-b")
    videos = sorted(SHARED_VIDEOS.iterdir())
    done = vidcls(
        "predict", *map(str, videos), "--weights", str(folder), "-f", "jsonl", "-k", "7", "--views", "1"
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(v) for v in videos]
    spec = InputSpec(fps=25, num_views=1)
    for row, video in zip(rows, videos, strict=True):
        assert row["error"] is None
        with VideoReader(row["decoder"]) as reader:
            info = reader.open(video)
            plan = plan_clips(spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps)
            decoded = reader.read(plan.unique)
        frames = dict(zip(decoded.indices.tolist(), decoded.frames, strict=True))
        theirs = reference_scores(folder, frames, plan.indices.tolist())
        ours = scores_of(row)
        assert close_logits(ours, theirs), video.name
        assert np.argsort(-ours)[:5].tolist() == np.argsort(-theirs)[:5].tolist()


def make_bad_inputs(folder: Path) -> dict[str, Path]:
    good = make_clip(folder / "good.mp4", 20, size=(48, 64))
    bad = {
        "missing": folder / "missing.mp4",
        "text": folder / "text.mp4",
        "empty": folder / "empty.mp4",
        "audio": make_audio(folder / "audio.mp4"),
        "beheaded": folder / "beheaded.mp4",
        "folder": folder / "folder.mp4",
    }
    bad["text"].write_text("this is no video\n" * 50)
    bad["empty"].touch()
    bad["beheaded"].write_bytes(good.read_bytes()[: good.stat().st_size // 3])
    bad["folder"].mkdir()
    if hasattr(os, "mkfifo"):
        bad["fifo"] = folder / "fifo.mp4"
        os.mkfifo(bad["fifo"])
    return bad


def test_bad_inputs_get_one_line_each_and_the_others_go_on(checkpoint: Path, tmp_path: Path) -> None:
    bad = make_bad_inputs(tmp_path)
    order = [*map(str, bad.values())]
    order.insert(2, str(tmp_path / "good.mp4"))
    done = vidcls("predict", *order, "--weights", str(checkpoint), "-f", "jsonl", "--views", "1")
    rows = {Path(row["path"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert len(rows) == len(order)
    assert rows["good.mp4"]["error"] is None
    assert len(rows["good.mp4"]["predictions"]) == 5
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("vidcls: ")]
    assert len(lines) == len(bad)
    assert "Traceback" not in done.stderr.decode()
    for name, path in bad.items():
        row = rows[path.name]
        assert row["predictions"] == []
        assert row["error"].startswith(f"{path}: "), name
        assert f"vidcls: {row['error']}" in lines


def test_formats(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    base = ("predict", str(clip), "--weights", str(checkpoint), "--views", "1", "-k", "2")
    table = vidcls(*base).stdout.decode()
    assert "label" in table
    assert "\x1b" not in table
    rows = list(csv.DictReader(io.StringIO(vidcls(*base, "-f", "csv").stdout.decode())))
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert vidcls(*base, "-o", str(tmp_path / "out.json")).stdout == b""
    assert len(json.loads((tmp_path / "out.json").read_text())[0]["predictions"]) == 2


def test_the_columns_of_a_manifest_go_along(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "pan-left.mp4"
    manifest = tmp_path / "clips.csv"
    manifest.write_text(f"file,label,seconds\n{example},true,7\nnone.mp4,false,8\n")
    done = vidcls("predict", str(manifest), str(example), str(tmp_path / "no.tsv"), "-k", "1")
    assert done.returncode == 1
    good, bad, plain, missing = csv.DictReader(io.StringIO(done.stdout.decode()), delimiter="\t")
    assert (good["label"], good["input_label"], good["input_seconds"]) == ("pan left", "true", "7")
    assert (bad["path"], bad["label"], bad["input_label"], bad["input_seconds"]) == (
        "none.mp4",
        "",
        "false",
        "8",
    )
    assert "no such file" in bad["error"]
    assert (plain["label"], plain["input_label"]) == ("pan left", "")
    assert missing["error"]


def test_standard_input_lists_and_environment(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    env = {
        "VIDCLS_WEIGHTS": str(checkpoint),
        "VIDCLS_FORMAT": "jsonl",
        "VIDCLS_VIEWS": "1",
        "VIDCLS_TOP_K": "1",
    }
    (tmp_path / "list.txt").write_text(f"{clip}\n{clip}\n")
    done = vidcls("predict", "-", f"@{tmp_path / 'list.txt'}", "-k", "3", stdin=clip.read_bytes(), env=env)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == ["-", str(clip), str(clip)]
    assert {len(row["predictions"]) for row in rows} == {3}  # the flag wins over the environment
    assert rows[0]["predictions"] == rows[1]["predictions"]


def test_usage_and_model_errors(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    for arguments, code, message in [
        (("--model", "vivit-fee"), 2, "did you mean 'vivit-fe'"),
        (("--model", "vivit-fe"), 3, "no weights"),
        (("--weights", str(tmp_path / "none")), 3, "none"),
        (("--weights", str(clip)), 3, "clip.mp4"),
        (("--weights", str(checkpoint), "--fps", "fast"), 2, "--fps"),
        (("--weights", str(checkpoint), "--crops", "2"), 2, "num_crops"),
        (("--weights", str(checkpoint), "--frames", "7"), 2, "multiple of 2"),
        (("--weights", str(checkpoint), "--device", "abacus"), 3, "abacus"),
        (("--weights", str(checkpoint), "--labels", str(clip)), 3, "clip.mp4"),
        (("--nonsense",), 2, "--nonsense"),
    ]:
        done = vidcls("predict", str(clip), *arguments)
        text = done.stderr.decode()
        assert done.returncode == code, (arguments, text)
        assert message in text
        assert "Traceback" not in text
        assert done.stdout == b""


def test_random_weights_say_so(clip: Path) -> None:
    done = vidcls(
        "predict", str(clip), "--model", "vivit-fe-tiny", "--random-weights", "-f", "jsonl", "--views", "1"
    )
    row = json.loads(done.stdout)
    assert row["weights"] == "random"
    assert any("random weights" in warning for warning in row["warnings"])
    plain = vidcls("predict", str(clip), "--model", "vivit-fe-tiny", "--random-weights", "--views", "1")
    assert "random weights" in plain.stdout.decode() + plain.stderr.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process on Windows")
def test_interrupt_keeps_what_was_computed(checkpoint: Path, clip: Path) -> None:
    many = [str(clip)] * 2000
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcls", "predict", *many, "--weights", str(checkpoint), "-f", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    rows = [json.loads(line) for line in (first + rest).splitlines()]
    assert process.returncode == 130
    assert 1 <= len(rows) < len(many)
    assert errors.decode() == "vidcls: interrupted\n"


def test_a_reader_that_goes_away_is_no_error(checkpoint: Path, clip: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vidcls",
            "predict",
            *[str(clip)] * 50,
            "--weights",
            str(checkpoint),
            "-f",
            "jsonl",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=120) == 0


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """And it is said before a model is loaded; the library's parameter has become the flag."""
    out = tmp_path / "out.json"
    out.write_text("precious")
    for arguments, problem in (
        (("-o", str(out)), "already exists; choose another output, or pass --overwrite"),
        (("-o", str(tmp_path / "out.xlsx")), "its suffix is not that of an output format"),
        (("-o", str(out), "-f", "csv", "--overwrite"), "its suffix is that of json, not of csv"),
    ):
        done = vidcls("predict", "none.mp4", *arguments, "--weights", "none.safetensors")
        assert done.returncode == 2, done.stderr
        assert problem in done.stderr.decode()
    assert out.read_text() == "precious"
