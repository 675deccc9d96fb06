"""V-JEPA 2: transformers' folders against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError, ConfigError

transformers = pytest.importorskip("transformers", minversion="5.24", reason="the reference")

SMALL: dict[str, Any] = {
    "crop_size": 16,
    "patch_size": 8,
    "frames_per_clip": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2.5,
    "num_pooler_layers": 1,
    "num_labels": 5,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 1,
    "pred_num_hidden_layers": 1,
}


def reference(**changes: Any) -> Any:
    """A model of transformers, no parameter of which is at a value that would hide anything."""
    torch.manual_seed(0)
    model = transformers.VJEPA2ForVideoClassification(
        transformers.VJEPA2Config(**{**SMALL, **changes})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def difference(ours: Any, theirs: Any, size: tuple[int, ...] = (2, 3, 4, 16, 16)) -> float:
    views = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.double()(views.transpose(1, 2)).logits
        return float((ours.double()(views) - expected).abs().max())


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (2, 3, 4, 16, 16)),
        ({}, (1, 3, 9, 16, 16)),  # more frames than the configuration's, and one that fills no tubelet
        ({}, (1, 3, 1, 16, 16)),  # fewer than a tubelet's
        ({"crop_size": 24, "frames_per_clip": 6, "tubelet_size": 3}, (1, 3, 6, 24, 24)),
        ({"num_attention_heads": 4, "num_pooler_layers": 3}, (1, 3, 4, 16, 16)),
        ({"hidden_size": 48, "num_attention_heads": 3, "num_pooler_layers": 0}, (1, 3, 4, 16, 16)),
        ({"qkv_bias": False, "layer_norm_eps": 1e-3}, (1, 3, 4, 16, 16)),
        ({"hidden_act": "gelu_pytorch_tanh", "in_chans": 1}, (1, 1, 4, 16, 16)),
        ({"mlp_ratio": 48 / 11, "hidden_size": 44, "num_attention_heads": 2}, (1, 3, 4, 16, 16)),
    ],
)
def test_folders_compute_what_transformers_does(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, ...]
) -> None:
    theirs = reference(**changes)
    theirs.save_pretrained(tmp_path)
    assert any(name.startswith("vjepa2.predictor.") for name in load_file(tmp_path / "model.safetensors"))
    assert difference(load_checkpoint(tmp_path), theirs, size) < 1e-9


def test_the_authors_probe_can_be_asked_for(tmp_path: Path) -> None:
    theirs = reference()
    theirs.save_pretrained(tmp_path)
    for module in theirs.pooler.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
        if hasattr(module, "num_heads"):
            module.num_heads, module.head_dim, module.scale = 4, 8, 8**-0.5
    ours = load_checkpoint(tmp_path, pooler_num_heads=4, pooler_norm_eps=1e-5)
    assert difference(ours, theirs) < 1e-9
    assert difference(load_checkpoint(tmp_path), theirs) > 1e-3


def test_another_size_of_views(tmp_path: Path) -> None:
    theirs = reference()
    theirs.save_pretrained(tmp_path)
    larger = reference(crop_size=32)
    larger.load_state_dict(theirs.state_dict())
    ours = load_checkpoint(tmp_path, image_size=32)
    assert difference(ours, larger, (1, 3, 4, 32, 32)) < 1e-9
    with pytest.raises(ConfigError, match=r"got views of \(16, 16\) pixels"):
        ours(torch.zeros(1, 3, 4, 16, 16, dtype=torch.float64))


def test_a_folder_tells_labels_and_preprocessing(tmp_path: Path) -> None:
    reference(id2label={i: f"action {i}" for i in range(5)}).save_pretrained(tmp_path)
    processor = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": {"height": 16, "width": 16}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(processor))
    read = read_checkpoint(tmp_path)
    assert read.labels == tuple(f"action {i}" for i in range(5))
    assert read.input is not None
    assert (read.input["num_frames"], read.input["resize"], read.input["image_size"]) == (4, 18, (16, 16))


def test_an_encoder_is_told_from_a_classifier(tmp_path: Path) -> None:
    transformers.VJEPA2Model(transformers.VJEPA2Config(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no classifier.*init-from"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pooler.cross_attention_layer.cross_attn.v_proj.bias", "1 missing"),
        ("vjepa2.encoder.layer.1.attention.key.weight", "1 missing"),
        ("classifier.bias", "1 missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, problem: str) -> None:
    reference().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{problem}.*{name.rpartition('.')[0]}"):
        load_checkpoint(tmp_path)
