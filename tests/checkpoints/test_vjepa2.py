"""V-JEPA 2: transformers' folders against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.config import InputSpec, load_registry
from vidcls.errors import CheckpointError, ConfigError
from vidcls.views.transform import plan_clips

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


@pytest.mark.parametrize(("clips", "layers"), [(2, ()), (3, (0, 1)), (1, (0,))])
def test_clips_and_layers_that_the_authors_classify_together(
    tmp_path: Path, clips: int, layers: tuple[int, ...]
) -> None:
    """As ``evals/video_classification_frozen`` does: the pooler sees the tokens of all clips and layers."""
    theirs = reference(num_hidden_layers=3)
    theirs.save_pretrained(tmp_path)
    theirs.double()
    views = torch.randn(2, 3, 4 * clips, 16, 16, dtype=torch.float64)
    tokens = []
    with torch.no_grad():
        for clip in views.transpose(1, 2).chunk(clips, dim=1):
            x = theirs.vjepa2.encoder.embeddings(clip)
            for number, layer in enumerate(theirs.vjepa2.encoder.layer):
                x = layer(x, None)
                x = x[0] if isinstance(x, tuple) else x
                if number in (layers or (2,)):
                    tokens.append(theirs.vjepa2.encoder.layernorm(x))
        expected = theirs.classifier(theirs.pooler(torch.cat(tokens, dim=1)))
        ours: Any = load_checkpoint(tmp_path, clips_per_view=clips, out_layers=layers)
        torch.testing.assert_close(ours.double()(views), expected, rtol=0, atol=1e-9)
    assert ours.config.num_frames == 4 * clips


def test_the_authors_protocol_cuts_views_as_they_do(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    seen = read_checkpoint(tmp_path, clips_per_view=2).input
    assert seen is not None
    spec = InputSpec(**{**seen, "stride": 2, "fps": None})
    assert (spec.num_frames, spec.num_views, spec.num_crops) == (8, 1, 3)
    assert (spec.resize, spec.resize_rule, spec.three_crops, spec.average) == (16, "opencv", "steps", "probs")
    apart = InputSpec(sampling="vjepa2", num_frames=4, stride=2, num_views=2, fps=None)
    for length in (5, 12, 30, 100):
        together = plan_clips(spec, num_frames=length, fps=30.0).indices
        assert together.tolist() == [plan_clips(apart, num_frames=length, fps=30.0).indices.ravel().tolist()]
    for wrong in ({"clips_per_view": 3}, {"sampling": "vivit"}):
        with pytest.raises(ValueError, match="clips_per_view needs sampling vjepa2"):
            InputSpec(**{**seen, **wrong})
    with pytest.raises(ConfigError, match="7 frames, which are not 2 clips"):
        load_checkpoint(tmp_path, clips_per_view=2)(torch.zeros(1, 3, 7, 16, 16))


@pytest.mark.parametrize("name", ["vjepa2-l-ssv2", "vjepa2-g-ssv2", "vjepa2-l-diving48", "vjepa2-g-diving48"])
def test_entries_state_the_published_protocol(name: str) -> None:
    spec = load_registry()[name]
    views, config = spec.input, spec.config
    assert spec.published.views == f"{views.clips_per_view * views.num_views}x{views.num_crops}"
    assert views.clips_per_view == config["clips_per_view"]
    assert (views.num_frames, views.image_size) == (config["num_frames"], (config["image_size"],) * 2)
    assert (config["pooler_num_heads"], config["pooler_norm_eps"]) == (16, 1e-5)
    assert len(config.get("out_layers", ())) == (4 if "diving48" in name else 0)
    assert (views.resize, views.resize_rule, views.average) == (config["image_size"], "opencv", "probs")


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
