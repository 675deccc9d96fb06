"""What lies beside the weights: preprocessors, labels, timm's configuration; and what is assumed where nothing does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError
from vidcls.models import build
from vidcls.views.transform import frame_transform, normalize

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "num_labels": 4,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vivit": ("VivitForVideoClassification", {"tubelet_size": [2, 16, 16], "num_frames": 4}),
    "timesformer": ("TimesformerForVideoClassification", {"patch_size": 16, "num_frames": 4}),
    "videomae": ("VideoMAEForVideoClassification", {"patch_size": 16, "num_frames": 4}),
    "vit": ("ViTForImageClassification", {"patch_size": 16}),
}
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def hf_folder(folder: Path, family: str = "vivit", **changes: Any) -> Path:
    transformers = pytest.importorskip("transformers")
    name, sizes = FAMILIES[family]
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model_class(model_class.config_class(**{**SIZES, **sizes, **changes})).save_pretrained(folder)
    return folder


def change_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def processor(kind: str) -> dict[str, Any]:
    return {
        f"{kind}_processor_type": "VideoMAEImageProcessor" if kind == "image" else "VideoMAEVideoProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 2,
    }


FILES: dict[str, dict[str, Any]] = {
    "image": {"preprocessor_config.json": processor("image")},
    "video": {"video_preprocessor_config.json": processor("video")},
    "nested video": {
        "processor_config.json": {"processor_class": "X", "video_processor": processor("video")}
    },
    "nested image": {
        "processor_config.json": {"processor_class": "X", "image_processor": processor("image")}
    },
    "flat": {"processor_config.json": processor("video")},
    "the video's counts, not the image's": {
        "preprocessor_config.json": {**processor("image"), "image_mean": [0.9] * 3},
        "video_preprocessor_config.json": processor("video"),
    },
    "the nested one counts most": {
        "preprocessor_config.json": {**processor("image"), "image_mean": [0.9] * 3},
        "video_preprocessor_config.json": {**processor("video"), "image_mean": [0.8] * 3},
        "processor_config.json": {"video_processor": processor("video")},
    },
}


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("files", list(FILES))
def test_a4_each_file_of_a_preprocessor_is_read(family: str, files: str, tmp_path: Path) -> None:
    hf_folder(tmp_path, family)
    for name, content in FILES[files].items():
        (tmp_path / name).write_text(json.dumps(content))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        checkpoint = read_checkpoint(path)
        spec = InputSpec(**(checkpoint.input or {}))
        assert spec.mean == tuple(MEAN)
        assert spec.std == tuple(STD)
        assert (spec.resize, spec.image_size) == (40, (32, 32))
        assert not any("preprocessor" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("family", "resize", "mean", "std"),
    [
        ("vivit", 37, None, None),
        ("timesformer", 32, 0.45, 0.225),
        ("videomae", 32, 0.485, 0.229),
        ("vit", (32, 32), 0.5, 0.5),
    ],
)
def test_a4_without_a_preprocessor_the_published_one_is_assumed_and_said(
    family: str, resize: Any, mean: float | None, std: float | None, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(hf_folder(tmp_path, family))
    spec = InputSpec(**(checkpoint.input or {}))
    assert (spec.image_size, spec.resize) == ((32, 32), resize)
    assert (spec.mean or (None,))[0] == mean
    assert (spec.std or (None,))[0] == std
    black = (0 * spec.scale + spec.offset - (mean or 0)) / (std or 1)
    assert black == pytest.approx(
        {"vivit": -1.0, "timesformer": -2.0, "videomae": -2.1179, "vit": -1.0}[family], abs=1e-4
    )
    (note,) = (note for note in checkpoint.notes if "no preprocessor file" in note)
    assert "32" in note
    assert "no mean and std" in note if mean is None else str(mean) in note


# --- labels ---


NAMES: list[tuple[Any, tuple[str, ...] | None, str]] = [
    (
        {"0": "run", "1": "", "2": "sit", "3": "fall"},
        ("run", "class 1", "sit", "fall"),
        "3 of 4 classes.*: 1$",
    ),
    ({"0": "run", "2": "sit", "3": "fall"}, ("run", "class 1", "sit", "fall"), "3 of 4 classes.*: 1$"),
    ({"0": "run", "1": None, "2": "sit", "3": "fall"}, ("run", "class 1", "sit", "fall"), "3 of 4"),
    ({"0": ["run", "jog"], "1": "lie", "2": "sit", "3": "fall"}, ("run, jog", "lie", "sit", "fall"), ""),
    (["run", "lie", "sit", "fall"], ("run", "lie", "sit", "fall"), ""),
    ({"0": "run", "1": "lie", "2": "sit", "3": "fall", "4": "fly"}, ("run", "lie", "sit", "fall"), "1 more"),
    ({"0": 10, "1": 11, "2": 12, "3": 13}, ("10", "11", "12", "13"), ""),
    ({"0": "run"}, ("run", "class 1", "class 2", "class 3"), "1 of 4"),
    ({str(i): f"LABEL_{i}" for i in range(4)}, None, ""),
    ({}, None, ""),
    ("run", None, ""),
    ({"zero": "run"}, None, ""),
]


@pytest.mark.parametrize(("id2label", "labels", "note"), NAMES)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a8_one_bad_entry_does_not_cost_all_names(
    family: str, id2label: Any, labels: tuple[str, ...] | None, note: str, tmp_path: Path
) -> None:
    hf_folder(tmp_path, family)
    change_config(tmp_path, id2label=id2label, label2id=None)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.labels == labels
    said = [text for text in checkpoint.notes if "classes" in text]
    assert len(said) == bool(note)
    if note:
        assert re.search(note, said[0])


def test_a8_names_are_found_in_label2id(tmp_path: Path) -> None:
    hf_folder(tmp_path)
    change_config(tmp_path, id2label=None, label2id={"run": 0, "lie": 1, "sit": 2, "fall": 3})
    assert read_checkpoint(tmp_path).labels == ("run", "lie", "sit", "fall")


# --- timm's repositories ---

VIT: dict[str, Any] = {"image_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4}
CFG: dict[str, Any] = {
    "input_size": [3, 32, 32],
    "mean": MEAN,
    "std": STD,
    "interpolation": "bilinear",
    "crop_pct": 0.95,
    "crop_mode": "center",
}


def timm_folder(folder: Path, name: str = "model.safetensors", **changes: Any) -> Path:
    """A repository as timm writes it, of a ViT with heads of 16 channels."""
    torch.manual_seed(0)
    model = build("vit-frames", **VIT, num_classes=3)
    state = {key.removeprefix("backbone."): tensor for key, tensor in model.state_dict().items()}
    state = {key: torch.randn_like(tensor) for key, tensor in state.items()}
    folder.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save(state, folder / name)
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 3,
        "label_names": ["run", "sit", "fall"],
        "model_args": {"num_heads": 4, "img_size": 32, "embed_dim": 64, "depth": 2, "patch_size": 8},
        "pretrained_cfg": CFG,
    }
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize("named", ["the folder", "the file"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "model.pth", "some-vit.safetensors"]
)
def test_a7_a_repository_of_timm(name: str, named: str, tmp_path: Path) -> None:
    timm_folder(tmp_path, name)
    checkpoint = read_checkpoint(tmp_path if named == "the folder" else tmp_path / name)
    assert checkpoint.labels == ("run", "sit", "fall")
    assert checkpoint.config["num_heads"] == 4
    spec = InputSpec(**(checkpoint.input or {}))
    assert (spec.mean, spec.std) == (tuple(MEAN), tuple(STD))
    assert (spec.image_size, spec.resize, spec.interpolation) == ((32, 32), 33, "bilinear")


def test_a7_equals_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    timm_folder(tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    ours = load_checkpoint(tmp_path)
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (ours(frames.unsqueeze(2)) - theirs(frames)).abs().max() < 2e-5
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs), is_training=False)
    picture = np.random.default_rng(0).integers(0, 256, (41, 67, 3), dtype=np.uint8)
    spec = InputSpec(**(read_checkpoint(tmp_path).input or {}))
    seen = normalize(frame_transform(spec)(picture)[None, None], spec)[0, :, 0]
    assert np.abs(seen - transform(Image.fromarray(picture)).numpy()).max() < 1e-5


def test_a7_old_files_are_flat_and_names_may_be_described(tmp_path: Path) -> None:
    timm_folder(tmp_path)
    flat = {"architecture": "vit_base_patch16_224", **CFG, "labels": ["n01", "n02", "n03"]}
    (tmp_path / "config.json").write_text(
        json.dumps({**flat, "label_descriptions": {"n01": "tench", "n03": "goldfish"}})
    )
    checkpoint = read_checkpoint(tmp_path, num_heads=4)
    assert checkpoint.labels == ("tench", "n02", "goldfish")
    assert (checkpoint.input or {})["mean"] == tuple(MEAN)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"input_size": [1, 32, 32]}, "1 channels"),
        ({"input_size": "big"}, "input_size"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"mean": [1, 2]}, "mean"),
        ({"std": [0, 0, 0]}, "std"),
        ({"interpolation": "magic"}, "interpolation"),
    ],
)
def test_a7_a_configuration_that_cannot_be(cfg: dict[str, Any], words: str, tmp_path: Path) -> None:
    timm_folder(tmp_path, model_args={"num_heads": 4}, pretrained_cfg={**CFG, **cfg})
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path)


def test_a7_a_configuration_of_another_file_is_left_alone(tmp_path: Path) -> None:
    """In a folder of several weights, or beside a file of vidcls, config.json may be about something else."""
    from vidcls.checkpoints import save_checkpoint

    timm_folder(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="a safetensors file"):
        read_checkpoint(tmp_path / "other.safetensors")
    own = tmp_path / "own"
    timm_folder(own)
    save_checkpoint(build("vit-frames", **VIT, num_classes=2), own / "model.safetensors", labels=["a", "b"])
    assert read_checkpoint(own / "model.safetensors").labels == ("a", "b")


# --- heads ---


@pytest.mark.parametrize(
    ("width", "heads"), [(192, 3), (768, 12), (1024, 16), (1152, 16), (1280, 16), (1408, 16)]
)
def test_a5_heads_follow_from_the_width_and_are_said_to(width: int, heads: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = build(
            "vit-frames", image_size=32, patch_size=16, embed_dim=width, depth=1, num_heads=1, num_classes=2
        )
    state = {key.removeprefix("backbone."): torch.zeros(t.shape) for key, t in model.state_dict().items()}
    for name, content in (("vit.pth", state), ("timesformer.pyth", {"model_state": state})):
        torch.save(content, tmp_path / name)
        checkpoint = read_checkpoint(tmp_path / name)
        assert checkpoint.config["num_heads"] == heads
        assert any(f"{width} channels make; {heads} are assumed" in note for note in checkpoint.notes)
        asked = read_checkpoint(tmp_path / name, num_heads=heads)
        assert not any("heads" in note for note in asked.notes)


def test_a5_heads_of_an_unknown_width_are_asked_for(tmp_path: Path) -> None:
    state = build("vit-frames", image_size=32, patch_size=16, embed_dim=72, depth=1, num_heads=1).state_dict()
    torch.save({key.removeprefix("backbone."): tensor for key, tensor in state.items()}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match="num_heads="):
        read_checkpoint(tmp_path / "vit.pth")
    assert read_checkpoint(tmp_path / "vit.pth", num_heads=8).config["num_heads"] == 8
