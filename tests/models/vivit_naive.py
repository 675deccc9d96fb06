"""ViViT once more, restated from the paper in plain float64: dense attention, and masks where a model factorizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[np.float64]]


def logits(model: nn.Module, views: Tensor) -> Array:
    """Views (b, c, t, h, w) → logits (b, k), with the parameters of one of our models."""
    p = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    return np.stack([one(model, p, view) for view in views.double().numpy()])


def one(model: Any, p: dict[str, Array], view: Array) -> Array:
    config = model.config
    grid = [n // s for n, s in zip(view.shape[1:], config.tubelet_size, strict=True)]
    tokens = np.array([embed(p, view, config.tubelet_size, place) for place in np.ndindex(*grid)])
    places = np.array(list(np.ndindex(*grid)))  # (n, 3), t slowest
    if model.architecture == "vivit-fe":
        steps = tokens.reshape(grid[0], grid[1] * grid[2], -1)
        x = np.array([encoder(p, "spatial", s, config.num_heads, config) for s in steps])
        if config.temporal_depth:
            x = encoder(p, "temporal", x, config.temporal_num_heads or config.num_heads, config)
        else:
            x = x.mean(0)
    else:
        x = encoder(p, "encoder", tokens, config.num_heads, config, model.architecture, places)
    if config.representation_size:
        x = np.tanh(linear(p, "pre_logits.0", x))
    return linear(p, "head", x)


def embed(p: dict[str, Array], view: Array, size: tuple[int, int, int], place: tuple[int, ...]) -> Array:
    t, h, w = (slice(i * n, (i + 1) * n) for i, n in zip(place, size, strict=True))
    cube = view[:, t, h, w]
    return (p["patch_embed.proj.weight"] * cube).sum((1, 2, 3, 4)) + p["patch_embed.proj.bias"]


def encoder(
    p: dict[str, Array],
    name: str,
    x: Array,
    heads: int,
    config: Any,
    architecture: str = "vivit-st",
    places: Array | None = None,
) -> Array:
    if config.pool == "token":
        x = np.concatenate([p[f"{name}.cls_token"][0], x])
    x = x + p[f"{name}.pos_embed"][0]
    everything = np.ones((len(x), len(x)), dtype=bool)
    same_time = same_place = everything
    if architecture in ("vivit-fsa", "vivit-fdp"):
        assert places is not None
        same_time = places[:, None, 0] == places[None, :, 0]
        same_place = (places[:, None, 1:] == places[None, :, 1:]).all(-1)
    depth = len({key.split(".")[2] for key in p if key.startswith(f"{name}.blocks.")})
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        if architecture == "vivit-fsa":
            for axis in config.attention_order.split("_"):
                mask = same_time if axis == "space" else same_place
                inner = norm(p, f"{block}.norm_{axis}", x)
                x = x + attention(p, f"{block}.attn_{axis}", inner, [mask] * heads)
            x = x + mlp(p, f"{block}.mlp", norm(p, f"{block}.norm_mlp", x))
            continue
        masks = [everything] * heads
        if architecture == "vivit-fdp":
            masks = [same_place] * (heads // 2) + [same_time] * (heads // 2)
        x = x + attention(p, f"{block}.attn", norm(p, f"{block}.norm1", x), masks)
        x = x + mlp(p, f"{block}.mlp", norm(p, f"{block}.norm2", x))
    x = norm(p, f"{name}.norm", x)
    return {"token": x[0], "gap": x.mean(0), "gmp": x.max(0), "gsp": x.sum(0)}[config.pool]


def attention(p: dict[str, Array], name: str, x: Array, masks: list[Array]) -> Array:
    q, k, v = np.split(linear(p, f"{name}.qkv", x), 3, axis=-1)
    width = q.shape[-1] // len(masks)
    out = []
    for head, mask in enumerate(masks):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        scores = np.where(mask, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return linear(p, f"{name}.proj", np.concatenate(out, axis=-1))


def mlp(p: dict[str, Array], name: str, x: Array) -> Array:
    x = linear(p, f"{name}.fc1", x)
    x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return linear(p, f"{name}.fc2", x)


def norm(p: dict[str, Array], name: str, x: Array) -> Array:
    centered = x - x.mean(-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(p: dict[str, Array], name: str, x: Array) -> Array:
    bias = p.get(f"{name}.bias")
    y: Array = x @ p[f"{name}.weight"].T
    return y if bias is None else y + bias
