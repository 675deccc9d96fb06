"""The Longformer of VTN written again, densely and in float64, to hold the banded one against.

Takes tensors under the names of the release (``embeddings.…``, ``encoder.layer.N.…``) and shares no line with
the package: every token sees every other through one n × n mask, and global projections are made for all tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()


def norm(weights: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-12) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"].double() + weights[f"{name}.bias"].double()


def sees(num_tokens: int, window: int) -> Tensor:
    """(n, n) bool: which token (row) sees which (column); token 0 is global."""
    mask = torch.zeros(num_tokens, num_tokens, dtype=torch.bool)
    for i in range(num_tokens):
        for j in range(num_tokens):
            mask[i, j] = i == 0 or j == 0 or abs(i - j) <= window // 2
    return mask


def attention(weights: dict[str, Tensor], name: str, x: Tensor, heads: int, window: int) -> Tensor:
    def project(role: str) -> Tensor:
        y = linear(weights, f"{name}.{role}", x)
        return y.reshape(*y.shape[:2], heads, -1).transpose(1, 2)  # (b, heads, n, hd)

    scale = (x.shape[-1] // heads) ** -0.5
    scores = project("query") @ project("key").transpose(2, 3) * scale
    scores = scores.masked_fill(~sees(x.shape[1], window), -float("inf"))
    out = scores.softmax(-1) @ project("value")
    scores = project("query_global") @ project("key_global").transpose(2, 3) * scale
    out_global = scores.softmax(-1) @ project("value_global")
    out = torch.cat([out_global[:, :, :1], out[:, :, 1:]], dim=2)
    return out.transpose(1, 2).reshape(x.shape)


def longformer(
    weights: dict[str, Tensor], tokens: Tensor, frame_indices: Tensor, heads: int, windows: tuple[int, ...]
) -> Tensor:
    """Encode (b, 1 + t, d) with frame indices (b, t) → (b, 1 + t, d) float64."""
    positions = weights["embeddings.position_embeddings.weight"].double()
    types = weights["embeddings.token_type_embeddings.weight"].double()
    rows = len(positions)
    x = tokens.double().clone()
    for b in range(x.shape[0]):
        x[b, 0] += positions[rows - 2] + types[1]
        for i in range(x.shape[1] - 1):
            x[b, i + 1] += positions[int(frame_indices[b, i]) % (rows - 2)] + types[0]
    x = norm(weights, "embeddings.LayerNorm", x)
    for number, window in enumerate(windows):
        name = f"encoder.layer.{number}"
        y = attention(weights, f"{name}.attention.self", x, heads, window)
        y = linear(weights, f"{name}.attention.output.dense", y)
        x = norm(weights, f"{name}.attention.output.LayerNorm", x + y)
        y = F.gelu(linear(weights, f"{name}.intermediate.dense", x))
        y = linear(weights, f"{name}.output.dense", y)
        x = norm(weights, f"{name}.output.LayerNorm", x + y)
    return x


def random_weights(dim: int, hidden: int, depth: int, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a Longformer under the release's names."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.position_embeddings": (rows, dim),
        "embeddings.token_type_embeddings": (2, dim),
    }
    linears: dict[str, tuple[int, int]] = {}
    norms = ["embeddings.LayerNorm"]
    for number in range(depth):
        name = f"encoder.layer.{number}"
        for kind in ("", "_global"):
            for role in ("query", "key", "value"):
                linears[f"{name}.attention.self.{role}{kind}"] = (dim, dim)
        linears[f"{name}.attention.output.dense"] = (dim, dim)
        linears[f"{name}.intermediate.dense"] = (hidden, dim)
        linears[f"{name}.output.dense"] = (dim, hidden)
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    out = {f"{name}.weight": normal(*shape) * 0.3 for name, shape in shapes.items()}
    for name, shape in linears.items():
        out[f"{name}.weight"] = normal(*shape) / shape[1] ** 0.5
        out[f"{name}.bias"] = normal(shape[0]) * 0.1
    for name in norms:
        out[f"{name}.weight"] = 1 + 0.2 * normal(dim)
        out[f"{name}.bias"] = 0.1 * normal(dim)
    return out


def our_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of ``vidcls.models.longformer``."""
    plain = {
        "embeddings.position_embeddings": "position_embed",
        "embeddings.token_type_embeddings": "type_embed",
        "embeddings.LayerNorm": "norm",
    }
    inner = {
        "attention.output.dense": "attn.proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "output.LayerNorm": "norm2",
    }
    out: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, part = name.rsplit(".", 1)
        if stem in plain:
            out[f"{plain[stem]}.{part}"] = tensor
            continue
        number, rest = stem.removeprefix("encoder.layer.").split(".", 1)
        if rest in inner:
            out[f"layers.{number}.{inner[rest]}.{part}"] = tensor
        elif rest.startswith("attention.self.query"):
            roles = [name.replace("query", role) for role in ("query", "key", "value")]
            kind = "qkv_global" if rest.endswith("_global") else "qkv"
            out[f"layers.{number}.attn.{kind}.{part}"] = torch.cat([weights[role] for role in roles])
    return out
