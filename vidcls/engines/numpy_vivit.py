"""NumPy alone: small factorized encoders, for a few clips. Imports no torch, which takes longer than the clips do.

The forward pass is that of `vidcls.models.vivit.FactorizedEncoderViViT` in evaluation (Arnab et al. 2021, section
3.3.2), written once more for arrays; `tests/engines/test_numpy_vivit.py` holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.base import Array, Engine, Floats, Indices, ScaleShift, Wrapped
from vidcls.errors import CheckpointError

UNIT_BATCH = 64
"""Units that go through the encoder together: bounds the memory."""
MAX_MACS = 20e9
"""Most multiply-adds of all clips together for which NumPy is preferred: about what importing torch takes."""
MAX_BYTES = 64 << 20
"""Largest file."""

Tensors = Mapping[str, Floats]


class NumpyViViTEngine:
    """A factorized encoder run by NumPy, in fp32.

    Args:
        tensors: The model's state, float32.
        config: The architecture's configuration (fields of ``FactorizedEncoderConfig``).
    """

    name = "numpy"
    device = "cpu"
    precision = "fp32"

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self.tensors = tensors
        self.config = config
        self.unit_frames = int(config["tubelet_size"][0])

    def prepare(self, dtype: np.dtype[Any], scale_shift: ScaleShift) -> None:
        """There is nothing to prepare."""

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        steps = views.shape[1 if scale_shift is not None else 2] // self.unit_frames
        if scale_shift is None:
            views = views.transpose(0, 2, 3, 4, 1)
        whole = views[:, : steps * self.unit_frames].reshape(-1, self.unit_frames, *views.shape[2:])
        features = self._encode(whole, scale_shift)
        return self.classify(features.reshape(len(views), steps, -1))

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        return self._encode(units if scale_shift is not None else units.transpose(0, 2, 3, 4, 1), scale_shift)

    def _encode(self, units: Array, scale_shift: ScaleShift | None) -> Floats:
        """Units (u, t, h, w, c) → features (u, d)."""
        starts = range(0, len(units), UNIT_BATCH)
        return np.concatenate([self._encode_some(units[s : s + UNIT_BATCH], scale_shift) for s in starts])

    def _encode_some(self, units: Array, scale_shift: ScaleShift | None) -> Floats:
        numbers = units.astype(np.float32)
        if scale_shift is not None:
            numbers = numbers * scale_shift[0] + scale_shift[1]
        kernel = self.tensors["patch_embed.proj.weight"]  # (d, c, t, h, w)
        dim, channels, frames, high, wide = kernel.shape
        rows, columns = numbers.shape[2] // high, numbers.shape[3] // wide
        numbers = numbers[:, :, : rows * high, : columns * wide]
        patches = numbers.reshape(-1, frames, rows, high, columns, wide, channels)
        patches = patches.transpose(0, 2, 4, 1, 3, 5, 6).reshape(len(units), rows * columns, -1)
        tokens = _product(patches, kernel.transpose(2, 3, 4, 1, 0).reshape(-1, dim))
        tokens += self.tensors["patch_embed.proj.bias"]
        return self._encoder("spatial", tokens, self.config["num_heads"])

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        return self._linear("head", self.pool(features))

    def pool(self, features: Floats) -> Floats:
        """Features of the views' units (v, t', d) → what the classifier's last layer reads, (v, d)."""
        if self.config["temporal_depth"]:
            heads = self.config["temporal_num_heads"] or self.config["num_heads"]
            pooled = self._encoder("temporal", features, heads)
        else:
            pooled = features.mean(1)
        if "pre_logits.0.weight" in self.tensors:
            pooled = np.tanh(self._linear("pre_logits.0", pooled))
        return pooled

    def _encoder(self, name: str, tokens: Floats, heads: int) -> Floats:
        """Tokens (b, n, d) → (b, d)."""
        token = self.tensors.get(f"{name}.cls_token")
        if token is not None:
            tokens = np.concatenate([np.broadcast_to(token, (len(tokens), 1, tokens.shape[2])), tokens], 1)
        x = tokens + self.tensors[f"{name}.pos_embed"]
        for number in range(self.config["depth" if name == "spatial" else "temporal_depth"]):
            block = f"{name}.blocks.{number}"
            x = x + self._attention(f"{block}.attn", self._norm(f"{block}.norm1", x), heads)
            hidden = _gelu_tanh(self._linear(f"{block}.mlp.fc1", self._norm(f"{block}.norm2", x)))
            x = x + self._linear(f"{block}.mlp.fc2", hidden)
        normed = self._norm(f"{name}.norm", x)
        return normed.mean(1) if token is None else normed[:, 0]

    def _attention(self, name: str, x: Floats, heads: int) -> Floats:
        b, n, d = x.shape
        qkv = self._linear(f"{name}.qkv", x).reshape(b, n, 3, heads, d // heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (b, heads, n, hd)
        scores = (q * np.float32(1 / math.sqrt(d // heads))) @ k.swapaxes(-1, -2)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self._linear(f"{name}.proj", (weights @ v).swapaxes(1, 2).reshape(b, n, d))

    def _linear(self, name: str, x: Floats) -> Floats:
        y = _product(x, self.tensors[f"{name}.weight"].T)
        bias = self.tensors.get(f"{name}.bias")
        if bias is not None:
            y += bias
        return y

    def _norm(self, name: str, x: Floats) -> Floats:
        centered = x - x.mean(-1, keepdims=True)
        scale = 1 / np.sqrt(
            (centered * centered).mean(-1, keepdims=True) + np.float32(self.config["norm_eps"])
        )
        return centered * scale * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def _product(x: Floats, matrix: Floats) -> Floats:
    """(..., n) times (n, m) as one product of matrices; numpy makes a small one of each slice."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def _gelu_tanh(x: Floats) -> Floats:
    y: Floats = (
        0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)))
    )
    return y


class StartingEngine(Wrapped):
    """NumPy for the first clips, until importing torch has paid for itself; then another engine.

    Where nobody says how many clips will come, this costs at most twice what the better choice would have.

    Args:
        first: NumPy's.
        then: Makes the other one.
    """

    def __init__(self, first: NumpyViViTEngine, then: Callable[[], Engine]) -> None:
        self.engine: Engine = first
        self._config = first.config
        self._then: Callable[[], Engine] | None = then
        self._done = 0.0

    def __call__(self, views: NDArray[Any], *arguments: Any, **keywords: Any) -> Floats:
        units = self._config["num_frames"] // self._config["tubelet_size"][0]
        return self._after(len(views) * units, len(views))(views, *arguments, **keywords)

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        return self._after(len(units), 0).encode(units, scale_shift)

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        return self._after(0, len(features)).classify(features, frame_indices)

    def _after(self, units: int, views: int) -> Engine:
        """Return the engine for so much more work."""
        self._done += macs(self._config, units, views)
        if self._then is not None and self._done > MAX_MACS:
            self.engine, self._then = self._then(), None
        return self.engine


def macs(config: Mapping[str, Any], units: int, views: int) -> float:
    """Multiply-adds of this many units and views, near enough to choose by."""
    t, h, w = config["tubelet_size"]
    height, width = config["image_size"]
    dim, places, steps = config["embed_dim"], (height // h) * (width // w), config["num_frames"] // t

    def encoder(tokens: int, depth: int) -> float:
        # 4 + 2 · mlp_ratio matrices of d², and two products of tokens with tokens.
        return depth * tokens * ((4 + 2 * config["mlp_ratio"]) * dim * dim + 2 * tokens * dim)

    spatial: float = encoder(places, config["depth"]) + places * dim * t * h * w * config["in_channels"]
    return units * spatial + views * encoder(steps, config["temporal_depth"])


def can_run(architecture: str, config: Mapping[str, Any]) -> bool:
    """Whether `NumpyViViTEngine` knows such a model; NumPy has no error function for the exact GELU."""
    return architecture == "vivit-fe" and config.get("activation") == "gelu_tanh"


def read_metadata(path: Path) -> dict[str, Any] | None:
    """The record of one of our own small files; None where it is another, or a damaged one.

    What is wrong with a file is left to `vidcls.checkpoints` to say.
    """
    from safetensors import SafetensorError, safe_open

    from vidcls.checkpoints.metadata import KEY, parse_record

    try:
        if not _may_be_small(path):
            return None
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(KEY)
        if text is None:
            return None
        return parse_record(text, lambda problem, remedy: CheckpointError(str(path), problem, remedy))
    except (OSError, SafetensorError, CheckpointError):
        return None


def _may_be_small(path: Path) -> bool:
    return path.suffix == ".safetensors" and path.stat().st_size <= MAX_BYTES


def fits(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether one of our own files holds the tensors of the configuration, in types that NumPy has."""
    from safetensors import SafetensorError, safe_open

    wanted = shapes(config)
    try:
        if not _may_be_small(path):
            return False
        with safe_open(path, "numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: tuple(part.get_shape()) for name, part in parts.items()} == wanted and all(
                part.get_dtype() in ("F16", "F32", "F64") for part in parts.values()
            )
    except (OSError, SafetensorError):
        return False


def read_tensors(path: Path, config: Mapping[str, Any]) -> dict[str, Floats] | None:
    """The tensors of one of our own files, as float32; None where they are not those of the configuration."""
    from safetensors.numpy import load_file

    if not fits(path, config):
        return None
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in load_file(path).items()}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a factorized encoder."""
    t, h, w = config["tubelet_size"]
    height, width = config["image_size"]
    dim, classes, token = config["embed_dim"], config["num_classes"], int(config["pool"] == "token")
    found: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (dim, config["in_channels"], t, h, w),
        "patch_embed.proj.bias": (dim,),
    }

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = (rows, columns)
        if bias:
            found[f"{name}.bias"] = (rows,)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (dim,)

    def encoder(name: str, tokens: int, depth: int, ratio: float) -> None:
        found[f"{name}.pos_embed"] = (1, tokens + token, dim)
        if token:
            found[f"{name}.cls_token"] = (1, 1, dim)
        hidden = round(dim * ratio)
        for number in range(depth):
            block = f"{name}.blocks.{number}"
            norm(f"{block}.norm1")
            linear(f"{block}.attn.qkv", 3 * dim, dim, config["qkv_bias"])
            linear(f"{block}.attn.proj", dim, dim)
            norm(f"{block}.norm2")
            linear(f"{block}.mlp.fc1", hidden, dim)
            linear(f"{block}.mlp.fc2", dim, hidden)
        norm(f"{name}.norm")

    encoder("spatial", (height // h) * (width // w), config["depth"], config["mlp_ratio"])
    if config["temporal_depth"]:
        ratio = config["temporal_mlp_ratio"] or config["mlp_ratio"]
        encoder("temporal", config["num_frames"] // t, config["temporal_depth"], ratio)
    width_before_head = config["representation_size"] or dim
    if config["representation_size"]:
        linear("pre_logits.0", config["representation_size"], dim)
    linear("head", classes, width_before_head)
    return found
