"""Training that is told its initial weights and nothing else, and folders without a classifier or without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.test_all_architectures import SIZE, every_architecture, tiny
from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.errors import CheckpointError, UsageError
from vidcls.training.init.initialize import initialize
from vidcls.training.recipe import Recipe
from vidcls.training.setup import build_model, find_model, start_weights

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
}
HEADLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "vivit-st": ("VivitModel", {"tubelet_size": [2, 16, 16], "num_frames": 4}),
    "timesformer-divided": ("TimesformerModel", {"patch_size": 16, "num_frames": 4}),
    "timesformer-joint": (
        "TimesformerModel",
        {"patch_size": 16, "num_frames": 4, "attention_type": "joint_space_time"},
    ),
    "vit-frames": ("ViTModel", {"patch_size": 16}),
    "videomae": ("VideoMAEModel", {"patch_size": 16, "num_frames": 4}),
    "vjepa2": (
        "VJEPA2Model",
        {"patch_size": 16, "crop_size": 32, "frames_per_clip": 4, "num_pooler_layers": 1, "mlp_ratio": 1.5}
        | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    ),
    "videoprism": (
        "VideoPrismVisionModel",
        {"tubelet_size": [1, 16, 16], "num_frames": 4, "num_spatial_layers": 1, "num_temporal_layers": 1},
    ),
}
FRESH = {"videomae": ("fc_norm.", "head."), "vjepa2": ("pooler.", "head."), "videoprism": ("pool", "head.")}
"""What stands on the encoder and starts anew, by architecture; elsewhere the classifier alone."""


def headless(architecture: str, folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    name, sizes = HEADLESS[architecture]
    if not hasattr(transformers, name):
        pytest.skip(f"transformers has no {name} yet")
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**SIZES, **sizes))
    model.save_pretrained(folder)
    return model


def start(source: Path, **recipe: Any) -> tuple[Any, Any]:
    """The model that training would begin with, of three classes, and what became of its parameters."""
    wanted = Recipe(init={"from": str(source)}, **recipe)
    spec = find_model(wanted)
    model = build_model(spec, 3)
    return model, start_weights(model, spec, wanted)


@pytest.mark.parametrize("architecture", list(HEADLESS))
def test_b14_a_folder_without_a_classifier_is_a_start(architecture: str, tmp_path: Path) -> None:
    theirs = headless(architecture, tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.architecture == architecture
    assert any("no classifier" in note for note in checkpoint.notes)
    model, report = start(tmp_path)
    assert model.architecture == architecture
    if architecture in FRESH:
        fresh = {name for name in model.state_dict() if name.startswith(FRESH[architecture])}
        assert set(report.fresh) == fresh > {"head.weight", "head.bias"}
        return
    assert set(report.fresh) == {"head.weight", "head.bias"}
    bias = theirs.state_dict()["layernorm.bias" if "layernorm.bias" in theirs.state_dict() else "norm.bias"]
    norm = next(tensor for key, tensor in model.state_dict().items() if key.endswith("norm.bias"))
    assert norm.shape == bias.shape


@pytest.mark.parametrize("architecture", list(HEADLESS))
def test_b14_but_nothing_to_classify_with(architecture: str, tmp_path: Path) -> None:
    headless(architecture, tmp_path)
    with pytest.raises(CheckpointError, match=r"has no classifier.*init-from"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("architecture", list(FRESH))
def test_an_encoder_alone_is_read_as_the_one_under_a_classifier(architecture: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.24")
    settings = headless(architecture, tmp_path / "encoder").config
    name = HEADLESS[architecture][0].removesuffix("Model").removesuffix("Vision") + "ForVideoClassification"
    whole = getattr(transformers, name)(settings)
    whole.save_pretrained(tmp_path / "whole")
    getattr(whole, whole.base_model_prefix).save_pretrained(tmp_path / "encoder")
    alone, wanted = (read_checkpoint(tmp_path / folder).state for folder in ("encoder", "whole"))
    assert set(alone) == {key for key in wanted if not key.startswith(FRESH[architecture])}
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in alone.items())


def test_videomaes_pretraining_is_a_start(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.24")
    settings = transformers.VideoMAEConfig(
        **SIZES, num_frames=4, decoder_hidden_size=24, decoder_num_hidden_layers=1, use_mean_pooling=False
    )
    transformers.VideoMAEForPreTraining(settings).save_pretrained(tmp_path)
    model, report = start(tmp_path)
    assert {name.split(".")[0] for name in report.fresh} == {"fc_norm", "head"}
    theirs = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items() if "head" not in name}
    theirs = {name.replace("fc_norm", "norm"): tensor for name, tensor in theirs.items()}
    torch.save({"model": theirs | {"decoder.norm.bias": torch.ones(3)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="num_heads"):
        start(tmp_path / "checkpoint.pth")
    wanted = Recipe(model="videomae-tiny", init={"from": str(tmp_path / "checkpoint.pth")})
    sizes = {"embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 1.5, "tubelet_size": (2, 16, 16)}
    spec = find_model(wanted.model_copy(update={"config": sizes}))
    ours = build_model(spec, 3)
    again = start_weights(ours, spec, wanted)
    assert again is not None
    assert set(again.fresh) == set(report.fresh)
    assert torch.equal(ours.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("frames", [4, 8])
def test_b14_a_start_without_a_classifier_takes_other_views(frames: int, tmp_path: Path) -> None:
    headless("timesformer-divided", tmp_path)
    model, _ = start(tmp_path, input={"num_frames": frames})
    assert model.time_embed.shape[1] == frames


@every_architecture
def test_b14_initial_weights_alone_say_the_model(architecture: str, tmp_path: Path) -> None:
    theirs = tiny(architecture)
    path = tmp_path / "model.safetensors"
    save_checkpoint(theirs, path, input={"image_size": SIZE, "num_frames": 4})
    model, report = start(path)
    assert model.architecture == architecture
    assert all(name.startswith("head.") for name in report.fresh)
    assert model.config.num_classes == 3
    assert model.config.image_size == SIZE


def test_b14_nothing_said_at_all() -> None:
    for source in (None, "none"):
        with pytest.raises(UsageError, match="no model was given"):
            find_model(Recipe(init={"from": source}))


def test_b14_a_model_of_the_registry_as_the_start() -> None:
    assert find_model(Recipe(init={"from": "camera-motion"})).name == "camera-motion"


def test_b14_a_trainers_run_gives_a_hint(tmp_path: Path) -> None:
    for step in (500, 1000, 90):
        headless("vivit-st", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-last").mkdir()
    with pytest.raises(CheckpointError, match=r"Trainer's run.*3 checkpoints.*checkpoint-1000"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    with pytest.raises(CheckpointError, match=r"without weights.*checkpoint-1000"):
        read_checkpoint(tmp_path)


def test_b14_a_folder_of_weights_gives_a_hint(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"weights file itself.*last\.ckpt\.pth"):
        read_checkpoint(tmp_path)


def test_b14_a_classifier_of_as_many_classes_is_kept(tmp_path: Path) -> None:
    theirs = tiny("timesformer-joint")
    save_checkpoint(theirs, tmp_path / "m.safetensors")
    model = tiny("timesformer-joint")
    model.reset_head(theirs.num_classes)
    initialize(model, tmp_path / "m.safetensors")
    assert torch.equal(model.head.weight, theirs.head.weight)
