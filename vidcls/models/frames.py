"""A 2-D network on each frame by itself, logits averaged: what all ``*-frames`` architectures share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vidcls.models.layers import Classifier, init_truncated_normal


class FrameClassifier(Classifier):
    """Views (b, c, t, h, w) → logits (b, k), the mean over the frames' own.

    Args:
        config: With ``num_classes``.
        backbone: Frames (n, c, h, w) → features (n, d).
        dim: Width of what the classifier reads.
        dropout: Before the classifier.
    """

    def __init__(self, config: Any, backbone: nn.Module, dim: int, dropout: float = 0.0) -> None:
        super().__init__(config)
        self.backbone = backbone
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, config.num_classes)
        init_truncated_normal(self.head)

    def features(self, frames: Tensor) -> Tensor:
        """What the classifier reads of frames (n, c, h, w) → (n, d)."""
        return self.backbone(frames)

    def encode_frames(self, views: Tensor) -> Tensor:
        """Features of each frame by itself, (b, c, t, h, w) → (b, t, d): all that the classifier needs."""
        frames = views.transpose(1, 2)
        return self.features(frames.flatten(0, 1)).reshape(*frames.shape[:2], -1)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Logits (b, k) from features (b, t, d), averaged over the frames.

        ``frame_indices`` is taken for the sake of one interface with VTN; the order of frames means nothing here.
        """
        logits: Tensor = self.head(self.drop(features))
        return logits.mean(1)

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.classify(self.encode_frames(views))
