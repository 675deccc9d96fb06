"""Token merging: blocks that average tokens which say the same, so that later blocks have fewer to work on.

Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman: "Token Merging: Your ViT But Faster", ICLR 2023, section 3. Between the
attention and the MLP of a block, each second token looks for the most similar one among the others, by the cosine of
their keys, and the most similar pairs are averaged, weighted by how many tokens each already stands for. Attention is
proportional: the logarithm of a token's size is added to the logits of its key, as if it were there as often.

Two choices are ours. The paper merges equally many tokens in each block; here they are merged in the first third of the
blocks (in more of them where halves do not suffice), where a merged token saves most. And at the end each token gets
the value of the one that it was merged into, so that a mean over the tokens is the paper's weighted mean and no
pooling needs to know. A class token is never merged. Nothing here is learned: it applies to trained weights.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.layers import Block, skips_unread
from vidcls.models.merging_config import MERGEABLE, check_share


class MergingBlocks(nn.ModuleList):
    """Pre-norm blocks that merge tokens on the way; `vidcls.models.layers.run_blocks` calls `run`.

    Args:
        blocks: `Block` modules.
        share: Share of the tokens that are merged away, in [0, 0.9].
        keep_first: Whether the first token is a class token, or read alone.
    """

    def __init__(self, blocks: nn.ModuleList, share: float, keep_first: bool) -> None:
        super().__init__(blocks)
        self.share = share
        self.keep_first = keep_first

    def run(self, x: Tensor, first_only: bool) -> Tensor:
        """Tokens (b, n, d) → (b, n, d), or (b, 1, d) with ``first_only`` in inference."""
        counts = token_counts(x.shape[1], len(self), self.share)
        sizes = place = (
            None  # (b, m, 1) tokens that each of m stands for; (b, n) which of them each token became
        )
        for number, (module, count) in enumerate(zip(self, counts, strict=True)):
            block = cast(Block, module)
            unread = first_only and skips_unread() and number == len(self) - 1
            x, keys = _attend(block, x, sizes, first_only=unread)
            if count < x.shape[1] and not unread:
                x, sizes, moved = merge(x, keys, sizes, x.shape[1] - count, self.keep_first)
                place = moved if place is None else moved.gather(1, place)
            x = x + cast(Tensor, block.drop_path(block.mlp(block.norm2(x))))
        if place is None or x.shape[1] == 1:
            return x
        return x.gather(1, place.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def token_counts(tokens: int, depth: int, share: float) -> list[int]:
    """How many tokens are left after each block: by equal ratios over the first third, or as many as it takes."""
    steps = max(math.ceil(depth / 3), math.ceil(math.log(1 - share) / math.log(0.5) - 1e-9), 1)
    left = [round(tokens * (1 - share) ** (min(block, steps) / steps)) for block in range(1, depth + 1)]
    return [max(count, 1) for count in left]


def merge(
    x: Tensor, keys: Tensor, sizes: Tensor | None, count: int, keep_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge ``count`` of the tokens into others by bipartite soft matching (section 3, "Bipartite Soft Matching").

    Args:
        x: Tokens (b, n, d).
        keys: What tells how alike two tokens are, (b, n, hd).
        sizes: Tokens that each stands for, (b, n, 1); None where each stands for itself.
        count: Tokens to merge away; at most each second one is.
        keep_first: Whether the first token must stay what it is.

    Returns:
        Tokens (b, m, d) with the first one in front, their sizes (b, m, 1), and where each old token is now (b, n).
    """
    b, n, d = x.shape
    sizes = x.new_ones(b, n, 1) if sizes is None else sizes
    metric = F.normalize(keys.float(), dim=-1)
    alike = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)  # each even token against each odd one
    if keep_first:
        alike[:, 0] = -torch.inf
    best, partner = alike.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    count = min(count, order.shape[1] - keep_first)
    gone, staying = order[:, :count], order[:, count:].sort(dim=-1).values
    target = partner.gather(1, gone)  # (b, count) among the odd tokens
    weighted = torch.cat([x * sizes, sizes], dim=-1)
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    moving = even.gather(1, gone.unsqueeze(-1).expand(-1, -1, d + 1))
    odd = odd.scatter_add(1, target.unsqueeze(-1).expand(-1, -1, d + 1), moving)
    merged = torch.cat([even.gather(1, staying.unsqueeze(-1).expand(-1, -1, d + 1)), odd], dim=1)
    first_odd = staying.shape[1]
    place = torch.empty(b, n, dtype=torch.int64, device=x.device)
    place[:, 1::2] = torch.arange(first_odd, first_odd + odd.shape[1], device=x.device)
    now = torch.empty_like(order).scatter_(1, gone, target + first_odd)
    place[:, ::2] = now.scatter_(1, staying, torch.arange(first_odd, device=x.device).expand(b, -1))
    sizes = merged[..., d:]
    return merged[..., :d] / sizes, sizes, place


def _attend(block: Block, x: Tensor, sizes: Tensor | None, first_only: bool) -> tuple[Tensor, Tensor]:
    """A block's attention with its residual, proportional to the tokens' sizes; and the mean of its heads' keys."""
    q, k, v = block.attn.split_heads(block.norm1(x))
    if first_only:
        x, q = x[:, :1], q[:, :, :1]
    mask = None if sizes is None else sizes.log().transpose(1, 2).unsqueeze(1).to(q.dtype)  # (b, 1, 1, n)
    attended = block.attn.merge_heads(block.attn.attend(q, k, v, mask))
    return x + cast(Tensor, block.drop_path(attended)), k.mean(1)


def merge_tokens(model: nn.Module, share: float) -> nn.Module:
    """Let a trained model merge tokens from now on; with a share of 0 it is returned as it is.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`; it is changed in place.
        share: Share of the tokens of a joint or spatial attention that are merged away, in [0, 0.9].

    Raises:
        ConfigError: The share is not valid, or the architecture attends in a way that cannot merge.
    """
    architecture = str(getattr(model, "architecture", type(model).__name__))
    check_share(architecture, share)
    if not share:
        return model
    parent, _, name = MERGEABLE[architecture].rpartition(".")
    holder = model.get_submodule(parent)
    blocks = getattr(holder, name)
    if not all(type(block) is Block for block in blocks):
        raise ConfigError(architecture, "its blocks cannot merge tokens", "leave merge_tokens out")
    pool = getattr(model.config, "pool", "token")
    setattr(holder, name, MergingBlocks(blocks, share, keep_first=pool == "token"))
    return model
