"""VTN's backbone and frame classifiers from checkpoints of T2T-ViT and timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vidcls.checkpoints import save_checkpoint
from vidcls.errors import CheckpointError
from vidcls.models import build
from vidcls.training.init.initialize import initialize

VTN: dict[str, Any] = {"image_size": 32, "temporal_depth": 1, "attention_window": 2, "num_classes": 3}
T2T: dict[str, Any] = {"token_dim": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0}


@pytest.mark.parametrize("kind", ["t2t-frames", "timm-frames"])
def test_vtn_takes_a_frame_classifiers_backbone(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    backbone: Any = {"variant": "t2t-vit-7", **T2T} if kind == "t2t-frames" else "timm:tf_efficientnet_lite0"
    config = {**T2T, "image_size": 32} if kind == "t2t-frames" else {"model": "tf_efficientnet_lite0"}
    frames: Any = build(kind, num_classes=5, **{**config, "image_size": 32}).eval()
    save_checkpoint(frames, tmp_path / "frames.safetensors")
    vtn: Any = build("vtn", backbone=backbone, **VTN).eval()
    report = initialize(vtn, tmp_path / "frames.safetensors")
    assert set(report.unused) == {"head.weight", "head.bias"}
    assert not any(name.startswith("backbone.") for name in report.fresh)
    picture = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(vtn.backbone(picture), frames.backbone(picture))


@pytest.mark.parametrize("classes", [5, 4])
def test_a_frame_classifier_is_fine_tuned(tmp_path: Path, classes: int) -> None:
    old: Any = build("t2t-frames", num_classes=5, image_size=32, **T2T).eval()
    save_checkpoint(old, tmp_path / "old.safetensors")
    new: Any = build("t2t-frames", num_classes=classes, image_size=32, **T2T).eval()
    report = initialize(new, tmp_path / "old.safetensors")
    assert set(report.fresh) == (set() if classes == 5 else {"head.weight", "head.bias"})
    larger: Any = build("t2t-frames", num_classes=5, image_size=48, **T2T).eval()
    initialize(larger, tmp_path / "old.safetensors")
    assert torch.equal(larger.backbone.pos_embed[:, 0], old.backbone.pos_embed[:, 0])


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    frames = build("t2t-frames", num_classes=5, image_size=32, **T2T)
    save_checkpoint(frames, tmp_path / "frames.safetensors")
    vtn = build("vtn", backbone={"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8}, **VTN)
    with pytest.raises(CheckpointError, match=r"has no place in the model|has the shape"):
        initialize(vtn, tmp_path / "frames.safetensors")
