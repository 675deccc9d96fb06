"""The classification loss against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidcls.training.losses import balanced_weights, class_loss


def test_loss_is_the_mean_over_heads() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 7), torch.stack([torch.arange(6) % 4, torch.arange(6) % 3], dim=1)
    loss, right = class_loss(logits, labels, [4, 3])
    first, second = logits.split_with_sizes([4, 3], dim=1)
    expected = (F.cross_entropy(first, labels[:, 0]) + F.cross_entropy(second, labels[:, 1])) / 2
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    both = (first.argmax(1) == labels[:, 0]) & (second.argmax(1) == labels[:, 1])
    assert torch.equal(right, both.float())


def test_smoothing_is_pytorchs() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(6, 4), torch.arange(6) % 4
    loss, _ = class_loss(logits, ids[:, None], [4], smoothing=0.2)
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, ids, label_smoothing=0.2)), abs=1e-6)


def test_balanced_weights_give_each_class_the_same_share() -> None:
    ids = [(0, 1)] * 6 + [(1, 1)] * 2 + [(3, 0)] * 4
    (first, second) = balanced_weights(ids, [4, 2])
    assert first.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 2), 0.0, 12 / (3 * 4)])
    assert second.tolist() == pytest.approx([12 / (2 * 4), 12 / (2 * 8)])
    weight_of_clips = torch.stack([first[a] for a, _ in ids])
    assert float(weight_of_clips.mean()) == pytest.approx(1.0)


def test_weights_scale_each_clips_loss() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(5, 3), torch.tensor([0, 0, 0, 1, 2])
    weights = balanced_weights([(int(i),) for i in ids], [3])
    loss, _ = class_loss(logits, ids[:, None], [3], weights=weights)
    each = F.cross_entropy(logits, ids, reduction="none") * weights[0][ids]
    assert float(loss) == pytest.approx(float(each.mean()), abs=1e-6)
