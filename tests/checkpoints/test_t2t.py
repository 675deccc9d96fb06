"""T2T-ViT: the authors' files, and the token modules against a restatement pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import build
from vidcls.models.t2t import TokenPerformer, TokensToToken, TokenTransformer
from vidcls.models.t2t_config import T2TConfig

SMALL: dict[str, Any] = {
    "image_size": 32,
    "num_classes": 5,
    "token_dim": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
}


def model(**changes: Any) -> Any:
    torch.manual_seed(0)
    built = build("t2t-frames", **{**SMALL, **changes}).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return built


def authors_names(built: Any) -> dict[str, Tensor]:
    """The state dict as the authors' code has it."""
    performer = built.config.tokens == "performer"
    out = {}
    for name, tensor in built.state_dict().items():
        name = name.removeprefix("backbone.")
        if name.startswith("tokens_to_token.attention") and performer:
            name = name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2")
        elif name.startswith("tokens_to_token.attention"):
            name = name.replace(".qkv.", ".attn.qkv.").replace(".proj.", ".attn.proj.")
        out[name] = tensor
    return out


@pytest.mark.parametrize("tokens", ["performer", "transformer"])
@pytest.mark.parametrize("entry", ["state_dict_ema", "state_dict", "net", ""])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_files(tmp_path: Path, tokens: str, entry: str, prefix: str) -> None:
    built = model(tokens=tokens)
    state = {prefix + name: tensor for name, tensor in authors_names(built).items()}
    content: dict[str, Any] = {entry: state, "epoch": 3, "arch": "t2t_vit_14"} if entry else state
    if entry == "state_dict_ema":  # the average is the model, whatever stands beside it
        content = {"state_dict": {name: torch.zeros_like(t) for name, t in state.items()}, **content}
    torch.save(content, tmp_path / "model.pth.tar")
    read = read_checkpoint(tmp_path / "model.pth.tar", num_heads=2)
    assert read.notes == ()
    loaded = load_checkpoint(tmp_path / "model.pth.tar", num_heads=2)
    frames = torch.randn(1, 3, 2, 32, 32)
    assert torch.equal(loaded(frames), built(frames))


def test_what_the_file_tells(tmp_path: Path) -> None:
    built = model(embed_dim=128)
    torch.save({"state_dict": authors_names(built)}, tmp_path / "model.pth.tar")
    read = read_checkpoint(tmp_path / "model.pth.tar")
    assert read.config["num_heads"] == 2
    assert "2 are assumed" in read.notes[0]
    assert read.input is not None
    assert (read.input["image_size"], read.input["resize"], read.input["interpolation"]) == (
        (32, 32),
        35,
        "bicubic",
    )
    torch.save({"state_dict": authors_names(model())}, tmp_path / "model.pth.tar")
    with pytest.raises(CheckpointError, match="24 channels make"):
        read_checkpoint(tmp_path / "model.pth.tar")


def test_another_image_size(tmp_path: Path) -> None:
    torch.save(authors_names(model()), tmp_path / "model.pth")
    larger: Any = load_checkpoint(tmp_path / "model.pth", num_heads=2, image_size=(48, 64))
    assert larger.backbone.pos_embed.shape == (1, 13, 24)
    assert torch.equal(larger.backbone.pos_embed[:, 0], model().backbone.pos_embed[:, 0])
    assert larger(torch.randn(1, 3, 1, 48, 64)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"got frames of \(32, 32\) pixels"):
        larger(torch.randn(1, 3, 1, 32, 32))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    state = authors_names(model())
    del state["tokens_to_token.attention1.w"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"tokens_to_token\.attention1"):
        load_checkpoint(tmp_path / "model.pth", num_heads=2)
    del state["head.weight"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"no tensor 'head\.weight'"):
        load_checkpoint(tmp_path / "model.pth", num_heads=2)


# The mathematics, token by token


@torch.no_grad()
def test_performer_is_linear_attention_with_the_stored_features() -> None:
    torch.manual_seed(0)
    module = TokenPerformer(10, 6, 1e-5).double()
    x = torch.randn(1, 5, 10, dtype=torch.float64)
    k, q, v = torch.split(module.kqv(module.norm1(x)), 6, dim=-1)

    def phi(u: Tensor) -> Tensor:
        return torch.stack([torch.exp(u @ w - u.dot(u) / 2) for w in module.w]) / math.sqrt(len(module.w))

    for i in range(5):
        weights = torch.stack([phi(q[0, i]).dot(phi(k[0, j])) for j in range(5)])
        attended = sum(weights[j] * v[0, j] for j in range(5)) / (weights.sum() + 1e-8)
        y = v[0, i] + module.proj(attended)
        torch.testing.assert_close(module(x)[0, i], y + module.mlp(module.norm2(y)))


@torch.no_grad()
def test_transformer_scales_by_the_width_of_its_input() -> None:
    torch.manual_seed(0)
    module = TokenTransformer(10, 6, 1e-5).double()
    x = torch.randn(1, 5, 10, dtype=torch.float64)
    q, k, v = module.qkv(module.norm1(x))[0].chunk(3, -1)
    y = v + module.proj((q @ k.T / math.sqrt(10)).softmax(-1) @ v)
    torch.testing.assert_close(module(x)[0], y + module.mlp(module.norm2(y)))


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (16, 24)])
def test_tokens_are_overlapping_patches_row_by_row(size: tuple[int, int]) -> None:
    config = T2TConfig(image_size=size, token_dim=8, embed_dim=12)
    module = TokensToToken(config)
    seen: list[Tensor] = []
    module.attention1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    frames = torch.randn(2, 3, *size)
    assert module(frames).shape == (2, math.prod(config.grid_size), 12)
    padded = torch.nn.functional.pad(frames, (2, 2, 2, 2))
    width = size[1] // 4
    for token in (0, 1, width, seen[0].shape[1] - 1):
        y, x = 4 * (token // width), 4 * (token % width)
        assert torch.equal(seen[0][:, token], padded[:, :, y : y + 7, x : x + 7].flatten(1))
