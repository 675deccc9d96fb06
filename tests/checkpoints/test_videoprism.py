"""VideoPrism: transformers' folders against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError, ConfigError

videoprism = pytest.importorskip("transformers.models.videoprism", reason="transformers before 5.24")

SMALL: dict[str, Any] = {
    "image_size": 16,
    "num_frames": 3,
    "tubelet_size": (1, 8, 8),
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "num_spatial_layers": 2,
    "num_temporal_layers": 2,
    "attn_logit_softcapping": 2.0,
    "num_labels": 5,
}


@pytest.fixture(autouse=True)
def _softmax_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' softmax goes through float32, in which epsilons cannot be told apart."""
    softmax = F.softmax

    def exact(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        return softmax(x, dim)

    monkeypatch.setattr(F, "softmax", exact)


def reference(kind: str = "VideoPrismForVideoClassification", **changes: Any) -> Any:
    torch.manual_seed(0)
    config = videoprism.VideoPrismVisionConfig(**{**SMALL, **changes})
    model = getattr(videoprism, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def difference(
    ours: Any, theirs: Any, size: tuple[int, ...] = (2, 3, 3, 16, 16), interpolate: bool = False
) -> float:
    views = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        # transformers keeps the query's axis: (b, 1, k).
        expected = theirs.double()(views.transpose(1, 2), interpolate_pos_encoding=interpolate).logits[:, 0]
        return float((ours.double()(views) - expected).abs().max())


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (2, 3, 3, 16, 16)),
        ({"qkv_bias": False, "layer_norm_eps": 1e-3}, (2, 3, 3, 16, 16)),
        ({"hidden_act": "gelu_pytorch_tanh", "num_attention_heads": 4}, (2, 3, 3, 16, 16)),
        ({"image_size": [16, 32], "num_channels": 1}, (1, 1, 3, 16, 32)),
    ],
)
def test_folders_compute_what_transformers_does(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, ...]
) -> None:
    theirs = reference(**changes)
    theirs.save_pretrained(tmp_path)
    assert difference(load_checkpoint(tmp_path), theirs, size) < 1e-9


def test_positions_are_resized_as_transformers_does(tmp_path: Path) -> None:
    theirs = reference()
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path, image_size=(24, 32), num_frames=5)
    # The tables are resized in float32 when they are read.
    assert difference(ours, theirs, (1, 3, 5, 24, 32), interpolate=True) < 1e-5
    with pytest.raises(ConfigError, match="got 3 time steps, but was built for 5"):
        ours(torch.zeros(1, 3, 3, 24, 32, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"got views of \(16, 16\) pixels"):
        ours(torch.zeros(1, 3, 5, 16, 16, dtype=torch.float64))


def test_a_frame_is_encoded_once_however_many_views_it_is_in(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    ours: Any = load_checkpoint(tmp_path)
    views = torch.randn(2, 3, 3, 16, 16)
    with torch.no_grad():
        units = ours.encode_frames(views.transpose(1, 2).flatten(0, 1).unsqueeze(2))
        torch.testing.assert_close(ours.classify(units.reshape(2, 3, -1)), ours(views))


def test_a_folder_tells_its_preprocessing(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    seen = read_checkpoint(tmp_path).input
    assert seen is not None
    assert (seen["num_frames"], seen["image_size"], seen["resize"]) == (3, (16, 16), (16, 16))
    size = {"height": 16, "width": 16}
    processor = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": size, "do_normalize": False}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(processor))
    seen = read_checkpoint(tmp_path).input
    assert seen is not None
    assert (seen["resize"], seen["interpolation"], seen["mean"]) == ((16, 16), "bicubic", None)


def test_an_encoder_is_told_from_a_classifier(tmp_path: Path) -> None:
    reference("VideoPrismVisionModel").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no classifier.*init-from"):
        load_checkpoint(tmp_path)


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    scale = tensors.pop("head.per_dim_scale")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(head.per_dim_scale\)"):
        load_checkpoint(tmp_path)
    save_file({**tensors, "head.per_dim_scale": scale}, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_frames": 9}))
    with pytest.raises(CheckpointError, match="make 9 positions, but its temporal table"):
        load_checkpoint(tmp_path)
