"""The classification loss over one or several heads, and running means of an epoch's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcls.training.data.augment import mix, soft_targets


@dataclass
class Sums:
    """Running sums of an epoch's training figures; part of the saved state."""

    loss: float = 0.0
    right: float = 0.0
    clips: int = 0

    def add(self, loss: float, right: float, clips: int) -> None:
        """Count a batch: its mean loss, and how many of its clips are right."""
        self.loss += loss * clips
        self.right += right
        self.clips += clips

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy."""
        count = max(1, self.clips)
        return {"train_loss": self.loss / count, "train_top1": self.right / count}


def balanced_weights(ids: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[Tensor]:
    """Weights of each head's classes, n / (k · clips of the class), 1 in the mean over clips; 0 for a class without.

    Args:
        ids: (n, heads) class ids.
        sizes: Classes of each head.
    """
    counts = [
        torch.bincount(column, minlength=k) for column, k in zip(torch.tensor(ids).T, sizes, strict=True)
    ]
    return [torch.where(c > 0, len(ids) / ((c > 0).sum() * c.clamp(min=1)), 0.0).float() for c in counts]


def balanced_positives(ids: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """Weights of clips that show a class, (k,): clips without it / clips with it; 1 for a class without clips."""
    counts = torch.bincount(torch.tensor([i for own in ids for i in own]), minlength=num_classes)
    return torch.where(counts > 0, (len(ids) - counts) / counts.clamp(min=1), 1.0).float()


def multi_label_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.0,
    share: float = 1.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, the mean over classes and clips, and of which clips the best class is one of theirs.

    Args:
        logits: (b, k).
        labels: (b, k) of 0 and 1.
        smoothing: Targets are this much nearer to a half.
        share: Mixup's share of the batch; the rest is the batch in reverse order.
        weights: (k,) weights of clips that show a class.

    Returns:
        The loss, and (b,) 1 for right and 0 for wrong.
    """
    targets = mix(labels.float() * (1.0 - smoothing) + smoothing / 2, share)
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights)
    return loss, labels.gather(1, logits.argmax(1, keepdim=True))[:, 0].float()


def class_loss(
    logits: Tensor,
    labels: Tensor,
    sizes: Sequence[int],
    smoothing: float = 0.0,
    share: float = 1.0,
    weights: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, the mean over heads and clips, and which clips are right in all heads.

    Args:
        logits: (b, k), the heads' side by side.
        labels: (b, heads) ids.
        sizes: Classes of each head.
        smoothing: Label smoothing.
        share: Mixup's share of the batch; the rest is the batch in reverse order.
        weights: For each head (k,) weights of its classes in the loss.

    Returns:
        The loss, and (b,) 1 for right and 0 for wrong; under mixup the shares of the labels that are right.
    """
    losses, right = [], torch.ones(len(labels), device=logits.device)
    for head, scores in enumerate(logits.float().split_with_sizes(list(sizes), dim=1)):
        ids = labels[:, head]
        targets = mix(soft_targets(ids, sizes[head], smoothing), share)
        losses.append(F.cross_entropy(scores, targets, None if weights is None else weights[head]))
        best = scores.argmax(1)
        right = right * (share * (best == ids) + (1.0 - share) * (best == ids.flip(0)))
    return torch.stack(losses).mean(), right
