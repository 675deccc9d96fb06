"""Layers that all models share."""

from __future__ import annotations

import pytest
import torch

from vidcls.models.layers import attend_in_packs


@pytest.mark.parametrize(
    "shape", [(6, 4, 8, 16), (7, 2, 17, 8), (2, 5, 3, 9, 4), (32, 1, 32, 8), (1, 2, 5, 4)]
)
def test_attention_in_packs_is_attention(shape: tuple[int, ...]) -> None:
    """CUDA devices pack short sequences; counts that no pack divides are among them."""
    q, k, v = (torch.randn(shape, dtype=torch.double) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_in_packs(q, k, v), expected, atol=1e-12, rtol=0)
