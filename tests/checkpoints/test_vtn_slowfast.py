"""VTN's released format through the real loader: goldens where they are, and files made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import golden_dirs
from tests.models import longformer_dense as dense
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError
from vidcls.models.vtn import VTN

TOLERANCE = 2e-5
DIM, HEADS, ROWS, CLASSES, SIZE, PATCH = 24, 3, 20, 5, 16, 8
BACKBONE_HEADS, WINDOWS = 2, (4, 6)

CFG: dict[str, Any] = {
    "DATA": {"MEAN": [0.45, 0.45, 0.45], "STD": [0.225, 0.225, 0.225], "NUM_FRAMES": 16, "SAMPLING_RATE": 8,
             "TARGET_FPS": 25, "TRAIN_JITTER_SCALES": [256, 320]},
    "MODEL": {"ARCH": "VIT", "DROPOUT_RATE": 0.4},
    "TEST": {"NUM_ENSEMBLE_VIEWS": 1, "NUM_SPATIAL_CROPS": 1},
    "TRAIN": {"EVAL_FULL_VIDEO": True, "EVAL_NUM_FRAMES": 250},
    "VTN": {"NUM_ATTENTION_HEADS": HEADS, "ATTENTION_WINDOW": [*WINDOWS, 8], "HIDDEN_DROPOUT_PROB": 0.2,
            "ATTENTION_PROBS_DROPOUT_PROB": 0.3},
}  # fmt: skip


# --- goldens -----------------------------------------------------------------------------------------------------


def golden_files() -> list[Path]:
    return [
        folder / name
        for folder in golden_dirs("vtn*")
        for name in ("checkpoint.pyth", "model.safetensors")
        if (folder / name).is_file()
    ]


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.parametrize("gradients", [False, True])
def test_goldens_stage_by_stage(path: Path, gradients: bool) -> None:
    import json

    case = json.loads((path.parent / "case.json").read_text())
    keywords: dict[str, Any] = {"num_heads": case["backbone"]["num_heads"]}
    if path.suffix != ".pyth":  # no cfg in there
        keywords["temporal_num_heads"] = case["vtn"]["num_attention_heads"]
        keywords["attention_window"] = case["vtn"]["attention_window"]
    model = load_checkpoint(path, **keywords)
    assert isinstance(model, VTN)
    with np.load(path.parent / "io.npz") as io:
        expected = {name: torch.from_numpy(io[name]) for name in io}
    views, indices = expected["input"], expected["position_ids"]
    with torch.set_grad_enabled(gradients):
        features = model.encode_frames(views)
        sequence = model.encode_sequence(features, indices)
        got = {
            "backbone": features,
            "sequence": sequence,
            "cls": sequence[:, 0],
            "logits": model(views, indices),
        }
    for name, tensor in got.items():
        assert (tensor - expected[name]).abs().max() <= TOLERANCE, name


# --- files made here, against a dense restatement -----------------------------------------------------------------


def released() -> dict[str, Tensor]:
    """Random weights under the release's names, its stray buffer among them."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    out = {"cls_token": normal(1, 1, DIM), "backbone.cls_token": normal(1, 1, DIM)}
    out["backbone.pos_embed"] = normal(1, 1 + (SIZE // PATCH) ** 2, DIM)
    out["backbone.patch_embed.proj.weight"] = normal(DIM, 3, PATCH, PATCH) / 14
    out["backbone.patch_embed.proj.bias"] = normal(DIM) / 10
    linears = {"backbone.blocks.0.attn.qkv": (3 * DIM, DIM), "backbone.blocks.0.attn.proj": (DIM, DIM)}
    linears |= {"backbone.blocks.0.mlp.fc1": (48, DIM), "backbone.blocks.0.mlp.fc2": (DIM, 48)}
    linears |= {"mlp_head.1": (12, DIM), "mlp_head.4": (CLASSES, 12)}
    for name, shape in linears.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = normal(*shape) / shape[1] ** 0.5, normal(shape[0]) / 10
    norms = ("backbone.blocks.0.norm1", "backbone.blocks.0.norm2", "backbone.norm", "mlp_head.0")
    for name in norms:
        out[f"{name}.weight"], out[f"{name}.bias"] = 1 + normal(DIM) / 5, normal(DIM) / 10
    temporal = dense.random_weights(DIM, 40, len(WINDOWS), ROWS)
    out |= {f"temporal_encoder.{name}": tensor for name, tensor in temporal.items()}
    out["temporal_encoder.embeddings.position_ids"] = torch.arange(ROWS)[None]
    return out


def save_pyth(path: Path, tensors: dict[str, Tensor], cfg: Any = None, key: str = "model_state") -> Path:
    text = cfg if isinstance(cfg, str) else yaml.safe_dump(CFG if cfg is None else cfg)
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 24, key: tensors, "optimizer_state": optimizer, "cfg": text}, path)
    return path


def features_again(weights: dict[str, Tensor], frames: Tensor) -> Tensor:
    """The backbone in float64, frames (n, 3, h, w) → (n, d)."""
    w = {name.removeprefix("backbone."): t for name, t in weights.items() if name.startswith("backbone.")}
    patches = F.unfold(frames.double(), PATCH, stride=PATCH).transpose(1, 2)
    x = patches @ w["patch_embed.proj.weight"].double().flatten(1).T + w["patch_embed.proj.bias"].double()
    cls = w["cls_token"].double().expand(len(x), 1, DIM)
    x = torch.cat([cls, x], dim=1) + w["pos_embed"].double()
    y = dense.linear(w, "blocks.0.attn.qkv", dense.norm(w, "blocks.0.norm1", x, 1e-6))
    q, k, v = y.reshape(len(x), -1, 3, BACKBONE_HEADS, DIM // BACKBONE_HEADS).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(2, 3) * (DIM // BACKBONE_HEADS) ** -0.5).softmax(-1) @ v
    x = x + dense.linear(w, "blocks.0.attn.proj", mixed.transpose(1, 2).reshape(x.shape))
    y = F.gelu(dense.linear(w, "blocks.0.mlp.fc1", dense.norm(w, "blocks.0.norm2", x, 1e-6)))
    x = x + dense.linear(w, "blocks.0.mlp.fc2", y)
    return dense.norm(w, "norm", x, 1e-6)[:, 0]


def logits_again(
    weights: dict[str, Tensor], views: Tensor, indices: Tensor, heads: int, windows: tuple[int, ...]
) -> Tensor:
    batch, _, num_frames = views.shape[:3]
    features = features_again(weights, views.transpose(1, 2).flatten(0, 1)).reshape(batch, num_frames, DIM)
    tokens = torch.cat([weights["cls_token"].double().expand(batch, 1, DIM), features], dim=1)
    temporal = {
        name.removeprefix("temporal_encoder."): t
        for name, t in weights.items()
        if name.startswith("temporal_encoder.")
    }
    cls = dense.longformer(temporal, tokens, indices, heads, windows)[:, 0]
    hidden = F.gelu(dense.linear(weights, "mlp_head.1", dense.norm(weights, "mlp_head.0", cls, 1e-5)))
    return dense.linear(weights, "mlp_head.4", hidden)


def clip(num_frames: int = 11) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    views = torch.randn(2, 3, num_frames, SIZE, SIZE, generator=generator)
    return views, torch.randint(0, 300, (2, num_frames), generator=generator)


@pytest.mark.parametrize("num_frames", [1, 11, 70])
def test_a_pyth_file_needs_no_keyword_but_the_backbones_heads(tmp_path: Path, num_frames: int) -> None:
    path = save_pyth(tmp_path / "vtn.pyth", released())
    views, indices = clip(num_frames)
    model = load_checkpoint(path, num_heads=BACKBONE_HEADS)
    expected = logits_again(released(), views, indices, HEADS, WINDOWS)
    with torch.no_grad():
        assert (model(views, indices) - expected).abs().max() <= TOLERANCE


def test_a_bare_file_takes_them_all_as_keywords(tmp_path: Path) -> None:
    save_file(released(), tmp_path / "vtn.safetensors")
    views, indices = clip()
    model = load_checkpoint(
        tmp_path / "vtn.safetensors", num_heads=BACKBONE_HEADS, temporal_num_heads=HEADS, attention_window=4
    )
    expected = logits_again(released(), views, indices, HEADS, (4, 4))
    with torch.no_grad():
        assert (model(views, indices) - expected).abs().max() <= TOLERANCE


def test_keywords_win_over_the_cfg(tmp_path: Path) -> None:
    path = save_pyth(tmp_path / "vtn.pyth", released())
    views, indices = clip()
    model = load_checkpoint(
        path, "vtn", num_heads=BACKBONE_HEADS, temporal_num_heads=6, attention_window=[2, 8], num_frames=12
    )
    assert model.config.num_frames == 12
    expected = logits_again(released(), views, indices, 6, (2, 8))
    with torch.no_grad():
        assert (model(views, indices) - expected).abs().max() <= TOLERANCE


def test_without_cfg_or_keywords_the_release_is_meant_and_said(tmp_path: Path) -> None:
    tensors = released()
    wide = {
        name: torch.zeros([64 if n == DIM else 192 if n == 3 * DIM else n for n in tensor.shape])
        for name, tensor in tensors.items()
        if not name.endswith("position_ids")
    }
    save_file(wide, tmp_path / "vtn.safetensors")
    checkpoint = read_checkpoint(tmp_path / "vtn.safetensors")
    assert checkpoint.config["attention_window"] == 18
    assert checkpoint.config["temporal_num_heads"] == checkpoint.config["backbone"]["num_heads"] == 1
    assert [note.count("heads") or note.count("attention_window") for note in checkpoint.notes] == [2, 2, 1]


def test_everything_the_file_tells_is_read(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save_pyth(tmp_path / "vtn.pyth", released()), num_heads=BACKBONE_HEADS)
    assert checkpoint.format == "vtn_slowfast"
    assert checkpoint.architecture == "vtn"
    assert checkpoint.notes == ()
    assert checkpoint.config == {
        "backbone": {
            "patch_size": (PATCH, PATCH),
            "embed_dim": DIM,
            "depth": 1,
            "num_heads": BACKBONE_HEADS,
            "mlp_ratio": 2.0,
            "qkv_bias": True,
            "pool": "token",
        },
        "image_size": (SIZE, SIZE),
        "in_channels": 3,
        "num_classes": CLASSES,
        "temporal_depth": 2,
        "temporal_num_heads": HEADS,
        "temporal_mlp_dim": 40,
        "attention_window": WINDOWS,
        "max_positions": ROWS,
        "mlp_dim": 12,
        "dropout": 0.2,
        "attn_dropout": 0.3,
        "head_dropout": 0.4,
    }


@pytest.mark.parametrize(
    ("full", "expected"),
    [(True, {"num_frames": 250, "stride": 1}), (False, {"num_frames": 16, "stride": 8})],
)
def test_input_is_the_releases_pipeline(tmp_path: Path, full: bool, expected: dict[str, int]) -> None:
    cfg = {**CFG, "TRAIN": {**CFG["TRAIN"], "EVAL_FULL_VIDEO": full}}
    fields = read_checkpoint(save_pyth(tmp_path / "vtn.pyth", released(), cfg), num_heads=2).input
    assert fields is not None
    spec = InputSpec(**fields)
    assert spec == InputSpec(
        sampling="vtn",
        fps=25,
        num_views=1,
        num_crops=1,
        image_size=(SIZE, SIZE),
        resize=256,
        resize_rule="float",
        center_crop="ceil",
        scale=1 / 255,
        offset=0,
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
        **expected,
    )


def test_image_size_resizes_the_backbones_positions_as_timm_does(tmp_path: Path) -> None:
    path = save_pyth(tmp_path / "vtn.pyth", released())
    model = load_checkpoint(path, num_heads=BACKBONE_HEADS, image_size=(24, 40))
    table = released()["backbone.pos_embed"]
    grid = table[:, 1:].reshape(1, 2, 2, DIM).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(3, 5), mode="bicubic", antialias=True)
    expected = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    assert (model.backbone.pos_embed - expected).abs().max() < 1e-6
    assert model(torch.zeros(1, 3, 2, 24, 40)).shape == (1, CLASSES)


# --- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temporal_encoder.encoder.layer.1.attention.self.key_global.bias", "key_global.bias"),
        ("temporal_encoder.encoder.layer.1.output.LayerNorm.weight", r"missing \(temporal_encoder.*norm2.weight"),
        ("cls_token", r"missing \(cls_token\)"),
        ("mlp_head.1.weight", "mlp_head.1.weight"),
        ("backbone.norm.bias", "backbone.norm.bias"),
        ("backbone.pos_embed", "pos_embed"),
    ],
)  # fmt: skip
def test_missing_tensors_are_named(tmp_path: Path, name: str, message: str) -> None:
    tensors = {key: tensor for key, tensor in released().items() if key != name}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save_pyth(tmp_path / "vtn.pyth", tensors), num_heads=BACKBONE_HEADS)


@pytest.mark.parametrize(
    "name",
    [
        "temporal_encoder.embeddings.word_embeddings.weight",
        "temporal_encoder.encoder.layer.0.crossattention.weight",
        "mlp_head.7.weight",
        "backbone.head.weight2",
    ],
)
def test_unexpected_tensors_are_named(tmp_path: Path, name: str) -> None:
    tensors = {**released(), name: torch.zeros(3)}
    with pytest.raises(CheckpointError, match="1 unexpected"):
        load_checkpoint(save_pyth(tmp_path / "vtn.pyth", tensors), num_heads=BACKBONE_HEADS)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("a: [b", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("x" * (1 << 20) + "x", "not a configuration"),
        ({"VTN": {"NUM_ATTENTION_HEADS": "many"}}, "NUM_ATTENTION_HEADS"),
        ({"VTN": {"ATTENTION_WINDOW": 18}}, "ATTENTION_WINDOW"),
        ({**CFG, "DATA": {"MEAN": ["a", "b", "c"]}}, "MEAN"),
    ],
)
def test_a_broken_cfg_is_said(tmp_path: Path, cfg: Any, message: str) -> None:
    path = save_pyth(tmp_path / "vtn.pyth", released(), cfg)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, num_heads=BACKBONE_HEADS)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "give num_heads="),
        ({"num_heads": 2, "num_classes": 400}, "reset_head"),
        ({"num_heads": 2, "patch_size": 16}, "patch_size"),
        ({"num_heads": 2, "architecture": "vit-frames"}, "holds a VTN"),
    ],
)
def test_keywords_that_contradict_the_file_are_refused(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    path = save_pyth(tmp_path / "vtn.pyth", released())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, **keywords)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vtn.pyth"
    torch.save({"model_state": released(), "cfg": Path("x")}, path)
    with pytest.raises(CheckpointError, match="pathlib"):
        load_checkpoint(path, num_heads=BACKBONE_HEADS)
