"""An attentive probe: V-JEPA 2's attentive pooler and a linear classifier on the tokens of another model.

Bardes et al. 2024, "Revisiting Feature Prediction for Learning Visual Representations from Video" (arXiv 2404.08471),
appendix D, and Assran et al. 2025 (`vidcls.models.vjepa2`): a frozen model is judged by a learned query that attends to
its tokens, in place of their mean.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.attentive_config import AttentiveConfig
from vidcls.models.layers import Classifier, init_truncated_normal
from vidcls.models.tokens import all_tokens, last_tokens
from vidcls.models.vjepa2 import AttentivePooler


class Attentive(Classifier):
    """``attentive``: views (b, c, t, h, w) → logits (b, k).

    Raises:
        ConfigError: The backbone has no tokens.
    """

    architecture: ClassVar[str] = "attentive"

    def __init__(self, config: AttentiveConfig) -> None:
        super().__init__(config)
        from vidcls.models import build

        self.pooler = AttentivePooler(config)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        init_truncated_normal(self)
        nn.init.trunc_normal_(self.pooler.query, std=0.02)
        self.backbone: Any = build(config.backbone_architecture, **asdict(config.inner()))
        tokens = last_tokens(self.backbone)
        if tokens is None:
            raise ConfigError(config.backbone_architecture, "has no tokens that a pooler can attend to", "")
        self.tokens = tokens
        self.uses_frame_indices = bool(getattr(self.backbone, "uses_frame_indices", False))
        for part in ("pooler", "head"):  # what the backbone makes of its tokens is not read
            if isinstance(getattr(self.backbone, part, None), nn.Module):
                setattr(self.backbone, part, nn.Identity())

    @property
    def frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return not any(parameter.requires_grad for parameter in self.backbone.parameters())

    def train(self, mode: bool = True) -> Attentive:
        """As of any module, but a frozen backbone stays as it is in inference: nothing of it is dropped."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, views: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        more = {"frame_indices": frame_indices} if self.uses_frame_indices else {}
        with torch.no_grad() if self.frozen else nullcontext():
            tokens = all_tokens(self.backbone, self.tokens, views, **more)
        return self.classify_tokens(tokens)

    def classify_tokens(self, tokens: Tensor) -> Tensor:
        """Map the backbone's tokens (b, n, d) to logits (b, k)."""
        return self.head(self.pooler(tokens))
