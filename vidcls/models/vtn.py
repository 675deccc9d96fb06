"""VTN: a 2-D backbone on every frame, then a Longformer over the whole video.

Neimark et al. 2021, "Video Transformer Network" (arXiv 2102.00719), section 3, and its release bomri/SlowFast.

The backbone sees each frame by itself, and its cost dwarfs the temporal encoder's. So a whole video can be seen
in three ways that give the same logits: all frames at once (`VTN.forward`), frames through the backbone in
chunks (``frame_chunk``, or `VTN.encode_stream` where even the frames do not fit into memory), and features that
were stored before (`VTN.classify`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidcls.errors import ConfigError, nearest
from vidcls.models import timm_frames, visual_transformer
from vidcls.models.layers import Classifier, init_truncated_normal, skips_unread
from vidcls.models.longformer import Longformer
from vidcls.models.resnet import ResNet
from vidcls.models.sizes import pair
from vidcls.models.t2t import T2TViT
from vidcls.models.t2t_config import T2T_VARIANTS, T2TConfig
from vidcls.models.visual_transformer_config import RESNETS, VARIANTS
from vidcls.models.vit import VisionTransformer
from vidcls.models.vit_config import vit_config
from vidcls.models.vtn_config import VIT_BACKBONES, VTNConfig

# Width of one attention head where a configuration does not say how many there are.
HEAD_DIM = 64
# A CUDA device takes so many times the frames at once: with few of them it waits for its next order.
CUDA_CHUNKS = 8
TIMM_PREFIX = "timm:"


class VTN(Classifier):
    """``vtn``: views (b, c, t, h, w) and the index of each frame in its video (b, t) → logits (b, k)."""

    architecture: ClassVar[str] = "vtn"
    uses_frame_indices = True

    # Frames that go through the backbone at once in evaluation when nothing else is said; None: all of a call's. More
    # is no faster on a CPU, and the 250 frames of the published evaluation would take 1.5 GB at once with ViT-B.
    frame_chunk: int | None = 32

    def __init__(self, config: VTNConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config.backbone, pair(config.image_size), config.in_channels)
        self.num_features = dim = feature_width(self.backbone)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.temporal_encoder = Longformer(
            dim,
            config.temporal_depth,
            config.temporal_num_heads or max(1, dim // HEAD_DIM),
            config.temporal_mlp_dim or 4 * dim,
            config.attention_window,
            config.max_positions,
            config.dropout,
            config.attn_dropout,
        )
        hidden = config.mlp_dim or dim
        self.head = nn.Sequential(
            nn.LayerNorm(dim),  # torch's own epsilon, 1e-5: unlike anywhere else in the model
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(config.head_dropout),
            nn.Linear(hidden, config.num_classes),
        )
        init_truncated_normal(self.head)

    def encode_frames(self, views: Tensor, frame_chunk: int | None = None) -> Tensor:
        """Features of each frame by itself, (b, c, t, h, w) → (b, t, d).

        Args:
            views: The frames, normalized.
            frame_chunk: Frames that go through the backbone at once, which bounds the memory it takes. None:
                ``self.frame_chunk`` in evaluation, times `CUDA_CHUNKS` on CUDA devices; all in training, where a
                backbone may normalize over its batch, and for a compiler, which would write the backbone down once
                for each chunk.

        Raises:
            ConfigError: ``frame_chunk`` is not positive, or the frames are not of ``config.image_size``.
        """
        chunk = frame_chunk
        if chunk is None and not self.training and not torch.compiler.is_compiling():
            chunk = self.frame_chunk
            if chunk is not None and views.is_cuda:
                chunk *= CUDA_CHUNKS
        if chunk is not None and chunk < 1:
            raise ConfigError("frame_chunk", f"is {chunk}", "give a positive number of frames")
        batch, _, num_frames = views.shape[:3]
        step = num_frames if chunk is None else max(1, chunk // batch)
        parts = []
        for part in torch.split(views, step, dim=2):
            features = self.backbone(part.transpose(1, 2).flatten(0, 1))
            parts.append(features.view(batch, -1, self.num_features))
        return torch.cat(parts, dim=1)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Tensor:
        """Features of a video that arrives piece by piece, each (b, c, t', h, w) → (b, t, d) for all.

        Only the piece at hand and the features are held: 3 kB for each frame with ViT-B, 0.28 GB for an hour at
        25 frames/s, where the frames themselves would be 54 GB.

        Raises:
            ConfigError: There is no piece.
        """
        parts = [self.encode_frames(chunk) for chunk in chunks]
        if not parts:
            raise ConfigError("VTN", "got no frames", "give at least one piece of the video")
        return torch.cat(parts, dim=1)

    def encode_sequence(
        self, features: Tensor, frame_indices: Tensor | None = None, cls_only: bool = False
    ) -> Tensor:
        """Temporal encoder's output for the class token and all frames, (b, t, d) → (b, 1 + t, d).

        Args:
            features: From `encode_frames`.
            frame_indices: (b, t) int64, each frame's index in its video; None counts from zero.
            cls_only: Return the class token's row alone, (b, 1, d), which is cheaper.

        Raises:
            ConfigError: The indices are not of shape (b, t).
        """
        batch, num_frames, _ = features.shape
        if frame_indices is None:
            frame_indices = torch.arange(num_frames, device=features.device).expand(batch, -1)
        if tuple(frame_indices.shape) != (batch, num_frames):
            raise ConfigError(
                "frame_indices",
                f"of shape {tuple(frame_indices.shape)} for {batch} × {num_frames} frames",
                "give one index for each frame",
            )
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1).to(features.dtype), features], dim=1)
        return self.temporal_encoder(tokens, frame_indices, cls_only)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Logits (b, k) from features (b, t, d); ``frame_indices`` as in `encode_sequence`."""
        # The last layer's frames lead to no logit. Where gradients are wanted they are computed all the same, so
        # that every parameter has one (of zero), as in the release.
        sequence = self.encode_sequence(features, frame_indices, cls_only=skips_unread())
        return self.head(sequence[:, 0])

    def forward(self, views: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Map views (b, c, t, h, w), and frame indices as in `encode_sequence`, to logits (b, k)."""
        return self.classify(self.encode_frames(views), frame_indices)

    def reset_head(self, num_classes: int) -> None:
        """Replace the last linear layer by a new one for ``num_classes`` classes."""
        new = nn.Linear(self.config.mlp_dim or self.num_features, num_classes)
        init_truncated_normal(new)
        self.head[-1] = new.to(self.cls_token)
        self.count_classes(num_classes)


class PooledResNet(ResNet):
    """A ResNet and the mean over its last map; images (n, c, h, w) → features (n, d)."""

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__(name, in_channels=in_channels)
        self.num_features = self.channels[-1]

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]  # one vector, not the list of maps
        return super().forward(images)[-1].mean((2, 3))


def backbone_names() -> tuple[str, ...]:
    """Return the names that ``backbone`` takes, besides ``timm:NAME``."""
    return (*VIT_BACKBONES, *RESNETS, *T2T_VARIANTS, *VARIANTS)


def build_backbone(
    backbone: str | dict[str, Any], image_size: tuple[int, int], in_channels: int
) -> nn.Module:
    """Build a frame encoder, (n, c, h, w) → (n, d), with random weights.

    Args:
        backbone: As in `VTNConfig`.
        image_size: Height and width of a frame in pixels.
        in_channels: Channels of a frame.

    Raises:
        ConfigError: No backbone is called so, or its configuration is wrong.
        DependencyError: It is one of timm's, and timm is not installed.
    """
    sizes: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels}
    if isinstance(backbone, dict):
        keywords = {**backbone, **sizes}
        variant = keywords.pop("variant", None)
        if variant in T2T_VARIANTS:
            return T2TViT(T2TConfig(**{**T2T_VARIANTS[variant], **keywords}))
        if variant is not None:
            return visual_transformer.build_backbone(variant, **keywords)
        return VisionTransformer(vit_config(keywords))
    if backbone.startswith(TIMM_PREFIX):
        return timm_frames.create(backbone.removeprefix(TIMM_PREFIX), 0, image_size, in_channels)
    name = backbone.replace("_", "-")
    if name in VIT_BACKBONES:
        return VisionTransformer(vit_config({**VIT_BACKBONES[name], **sizes}))
    if name in RESNETS:
        return PooledResNet(name, in_channels)
    if name in T2T_VARIANTS:
        return T2TViT(T2TConfig(**T2T_VARIANTS[name], **sizes))
    if name in VARIANTS:
        return visual_transformer.build_backbone(name, **sizes)
    raise ConfigError(
        "backbone",
        f"none is called {backbone!r}{nearest(name, backbone_names())}",
        f"choose one of {', '.join(backbone_names())}, or timm:NAME",
    )


def feature_width(backbone: nn.Module) -> int:
    """Width d of a backbone's features."""
    # Some of timm's models widen the pooled feature once more where the classifier would follow.
    width: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(width)
