"""`vidcls predict` with each kind of model, against its reference on the same frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner

from tests.checkpoints.test_wrappings import released_names
from tests.cli.test_predict import SHARED_VIDEOS, close_logits, decode_all, scores_of, vidcls
from tests.clips import make_clip
from vidcls.checkpoints import load_checkpoint
from vidcls.cli.app import app
from vidcls.models import build

CLASSES = 7


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 60, size=(72, 96))


def run(*arguments: str) -> Any:
    """The command in this process: importing torch anew for each call would take most of the time."""
    return CliRunner().invoke(app, arguments, prog_name="vidcls", env={"COLUMNS": "100"})


def predicted(*arguments: str) -> list[dict[str, Any]]:
    done = run("predict", *arguments, "-f", "jsonl", "-k", str(CLASSES))
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def randomize(model: torch.nn.Module) -> None:
    for parameter in model.parameters():  # zero biases and tiny weights would hide mistakes
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)


# --- TimeSformer ------------------------------------------------------------------------------------------------


def make_hf_timesformer(folder: Path, **sizes: Any) -> Path:
    """Write a TimeSformer with random weights as transformers writes it, with the hub's preprocessing."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(num_labels=CLASSES, **sizes)
    model = transformers.TimesformerForVideoClassification(config)
    randomize(model)
    model.save_pretrained(folder)
    size = config.image_size
    transformers.VideoMAEImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.45] * 3,
        image_std=[0.225] * 3,
    ).save_pretrained(folder)
    return folder


def timesformer_scores(folder: Path, frames: list[np.ndarray]) -> np.ndarray:
    """What transformers itself says: its processor and its model on these frames."""
    import transformers

    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    model = transformers.TimesformerForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits: Tensor = model(**processor(frames, return_tensors="pt")).logits[0]
    return logits.softmax(-1).numpy()


@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time"])
def test_timesformer_equals_transformers(attention: str, clip: Path, tmp_path: Path) -> None:
    folder = make_hf_timesformer(
        tmp_path,
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        attention_type=attention,
    )
    model = "timesformer" if attention == "divided_space_time" else "timesformer-joint"
    options = ("--model", model, "--weights", str(folder), "--stride", "4", "--fps", "native")
    (row,) = predicted(str(clip), *options)
    assert (row["views"], row["crops"], row["frames"], row["stride"]) == (1, 1, 4, 4)
    frames = decode_all(clip)
    theirs = timesformer_scores(folder, [frames[i] for i in (0, 5, 10, 15)])  # linspace(0, 4 · 4 - 1, 4)
    assert close_logits(scores_of(row), theirs)
    assert [p["index"] for p in row["predictions"]] == np.argsort(-theirs).tolist()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="the shared clips are not beside this checkout")
def test_base_timesformer_on_every_shared_clip(tmp_path: Path) -> None:
    from vidcls.config import load_registry
    from vidcls.video.reader import VideoReader
    from vidcls.views.sampling import plan_clips

    folder = make_hf_timesformer(tmp_path)
    videos = sorted(SHARED_VIDEOS.iterdir())
    rows = predicted(*map(str, videos), "--model", "timesformer", "--weights", str(folder))
    spec = load_registry()["timesformer"].input
    for row, video in zip(rows, videos, strict=True):
        with VideoReader(row["decoder"]) as reader:
            info = reader.open(video)
            plan = plan_clips(spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps)
            decoded = reader.read(plan.unique)
        places = np.searchsorted(decoded.indices, plan.indices[0])
        theirs = timesformer_scores(folder, [decoded.frames[place] for place in places])
        assert close_logits(scores_of(row), theirs), video.name


# --- VTN --------------------------------------------------------------------------------------------------------

CFG = """
DATA: {MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225], TARGET_FPS: 25, TRAIN_JITTER_SCALES: [36, 40]}
TRAIN: {EVAL_FULL_VIDEO: true, EVAL_NUM_FRAMES: 40}
TEST: {NUM_ENSEMBLE_VIEWS: 1, NUM_SPATIAL_CROPS: 1}
VTN: {NUM_ATTENTION_HEADS: 2, ATTENTION_WINDOW: [4, 6]}
"""


@pytest.fixture(scope="module")
def vtn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the release saves it; its 30 positions wrap at 28, within the clip."""
    torch.manual_seed(0)
    model = build(
        "vtn",
        backbone={"patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1},
        image_size=32,
        num_classes=CLASSES,
        temporal_num_heads=2,
        temporal_depth=2,
        attention_window=(4, 6),
        max_positions=30,
    )
    with torch.no_grad():  # so that the frames and their order matter
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    path = tmp_path_factory.mktemp("vtn") / "VTN.pyth"
    torch.save({"epoch": 24, "model_state": released_names(model), "optimizer_state": {}, "cfg": CFG}, path)
    return path


def slowfast_views(frames: list[np.ndarray], side: int, crop: int) -> Tensor:
    """As the release prepares frames: normalized, then the short side resized, then cut; (1, 3, t, h, w)."""
    pixels = (torch.from_numpy(np.stack(frames)).float() / 255 - 0.45) / 0.225
    height, width = pixels.shape[1:3]
    size = (side, int(width / height * side)) if height < width else (int(height / width * side), side)
    resized = F.interpolate(pixels.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    top, left = (-(-(length - crop) // 2) for length in size)
    return resized[:, :, top : top + crop, left : left + crop].transpose(0, 1)[None]


def test_vtn_equals_the_model_on_the_frames(vtn: Path, clip: Path, tmp_path: Path) -> None:
    model: Any = load_checkpoint(vtn)
    frames = decode_all(clip)

    def expected(indices: list[int]) -> np.ndarray:
        views = slowfast_views([frames[i] for i in indices], 36, 32)
        with torch.inference_mode():
            result: np.ndarray = model(views, torch.tensor([indices]))[0].softmax(-1).numpy()
        return result

    whole = expected(list(range(60)))
    published = expected(np.linspace(0, 39, 40).astype(int).tolist())  # the first 40 frames at 25 in a second
    assert not close_logits(whole, published, 1e-2)
    weights = ("--model", "vtn", "--weights", str(vtn))
    kept = ("--features", str(tmp_path / "kept"))
    for options, theirs, count in (
        ((), published, 40),
        (kept, published, 40),
        (("--frames", "all"), whole, 60),
        (("--frames", "all", *kept), whole, 60),
        (("--frames", "all", *kept), whole, 60),
    ):
        (row,) = predicted(str(clip), *weights, *options)
        assert close_logits(scores_of(row), theirs), options
        assert row["frames"] == count
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_whole_video_of_bad_and_good_clips(vtn: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    files = [str(tmp_path / "text.mp4"), str(clip), "-"]
    done = vidcls(
        *("predict", *files, "--weights", str(vtn), "--frames", "all", "--features", str(tmp_path / "kept")),
        *("-f", "jsonl"),
        stdin=clip.read_bytes(),
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [row["path"] for row in rows] == files
    assert rows[0]["error"].startswith(f"{files[0]}: ")
    assert rows[1]["predictions"] == rows[2]["predictions"] != []
    # What the file leaves open is said once, and the bad clip has its line.
    note, error = done.stderr.decode().splitlines()
    assert note.startswith(f"{vtn}: the file does not say how many attention heads")
    assert f"{files[0]}: " in error


def test_usage_of_whole_videos(vtn: Path, clip: Path) -> None:
    for options, words in [
        (("--weights", str(vtn), "--frames", "most"), "'most' is not a valid number of frames"),
        (("--weights", str(vtn), "--frames", "0"), "give 1 to 65536, or all"),
        (("--weights", str(vtn), "--frames", "all", "--views", "2"), "contradicts --frames all"),
        (("--weights", str(vtn), "--frames", "all", "--engine", "openvino"), "clips of a fixed length"),
        (("-m", "vivit-fe-tiny", "--random-weights", "--frames", "all"), "choose a model of vtn, vit-frames"),
        (("-m", "timesformer-tiny", "--random-weights", "--features", "x"), "no features of single frames"),
    ]:
        done = run("predict", str(clip), *options)
        assert done.exit_code == 2, done.output
        assert words in done.output
        assert done.output.count("\n") == 1
    assert not Path("x").exists()


# --- ViT by frame -----------------------------------------------------------------------------------------------


def test_timm_vit_equals_timm(clip: Path, tmp_path: Path) -> None:
    timm_vit = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1}
    model = timm_vit.VisionTransformer(**sizes, num_classes=CLASSES).eval()
    randomize(model)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    frames = decode_all(clip)

    def expected(indices: list[int]) -> np.ndarray:
        from PIL import Image

        # The entry: short side 248 / 224 of the crop, Pillow's bicubic, pixels from -1 to 1.
        side = round(32 * 248 / 224)
        views = []
        for index in indices:
            image = Image.fromarray(frames[index]).resize(
                (int(96 / 72 * side), side), Image.Resampling.BICUBIC
            )
            top, left = (side - 32) // 2, (image.width - 32) // 2
            pixels = torch.from_numpy(np.array(image))[top : top + 32, left : left + 32].float()
            views.append(pixels.permute(2, 0, 1) * (2 / 255) - 1)
        with torch.inference_mode():
            result: np.ndarray = model(torch.stack(views)).mean(0).softmax(-1).numpy()
        return result

    options = ("--model", "vit-b16-frames", "--weights", str(tmp_path / "vit.pth"), "--fps", "native")
    (row,) = predicted(str(clip), *options)
    # Of each of eight equal parts the frame in its middle.
    assert close_logits(scores_of(row), expected([(2 * i + 1) * 60 // 16 for i in range(8)]))
    (row,) = predicted(str(clip), *options, "--frames", "all", "--stride", "1")
    assert row["frames"] == 60
    assert close_logits(scores_of(row), expected(list(range(60))))
