"""Visual Transformers: a few visual tokens in place of a ResNet's last stage, and in place of an FPN.

Wu et al., "Visual Transformers: Token-based Image Representation and Processing for Computer Vision" (arXiv
2006.03677), published as "Visual Transformers: Where Do Transformers Really Belong in Vision Models?" (ICCV 2021).
With X a map of n = h·w pixels and C channels, and T a set of L tokens (sums written as the shapes need them):

    (1) filter tokenizer     T = softmax_n(X W_A)ᵀ X
    (2) recurrent tokenizer  T = softmax_n(X W_Rᵀ)ᵀ X,  W_R = T_in W_TR
    (3) token transformer    T' = T + softmax_L((T K)(T Q)ᵀ) T
    (4)                      T_out = T' + relu(T' F₁) F₂
    (5) projector            X_out = X + softmax_L((X W_Q)(T W_K)ᵀ) T

**Two readings.** The equations leave open how wide T, K and Q are, and with the C of the main text (256, 256, 1024,
1024 for ResNet-18, 34, 50, 101) and every matrix C × C they do not give the sizes that the paper's tables report:
``reading="printed"`` builds that. ``reading="table"``, the default, keeps all five equations and sets what they
leave open so that parameters and multiply-adds of all four networks come out within 3 % of the tables:

- tokens and the map of stage 5 have 1024 channels (a 1×1 convolution with batch norm and ReLU widens ResNet-18's and
  34's 256), so (5) needs no further matrix;
- K and Q are 1024 × 256, F₁ is 1024 × 512 and F₂ 512 × 1024: 1.57 M parameters for each transformer, which is what
  the paper's ablation of the transformer says (3.1 M for two, 4.7 M for three);
- the first tokenizer maps its tokens once more, T = softmax_n(X W_A)ᵀ X W_V, as the first version's pseudo-code does;
- multiply-adds include those of both attentions, and W_Q in (5) is moved to the tokens: (X W_Q)(T W_K)ᵀ =
  X (T W_K W_Qᵀ)ᵀ, the same function at L/n of its cost. On the pixels it alone would cost more than is published.

In both, the last module of a VT-ResNet has no projector: the classifier reads the tokens, so nobody would read
its output.

``benchmarks/vt_readings.py`` prints the search, in which this reading comes first (level with one that has a
single matrix in place of F₁ and F₂), and both readings beside the tables. What stays unknown: the authors'
code is unpublished; their default and advanced VT-ResNet-34 differ (21.8 and 19.2 M parameters;
``map_dim=512``, the width in a table of the appendix, gives the second), and with it no single reading fits
all rows; the recurrent tokenizer is said to add 0.5 M a module, here it adds 1.0 M; the saving "6.1x" and
"6.9x" of stage 5 in VT-ResNet-50 and 101 is 3.6x here. The text names neither scale nor norm inside a module,
so none is here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError, nearest
from vidcls.models.frames import FrameClassifier
from vidcls.models.layers import init_truncated_normal
from vidcls.models.resnet import ResNet
from vidcls.models.visual_transformer_config import MODULES, VTConfig

LEVELS = 4
"""Maps of a VT-FPN, those of a ResNet's four layers."""


class FilterTokenizer(nn.Module):
    """Equation (1): each token is an average of pixels, weighted by one learned filter.

    Args:
        dim: Channels C of the map.
        num_tokens: Tokens L.
        value_dim: Width of W_V; None for tokens of C channels as printed.
    """

    def __init__(self, dim: int, num_tokens: int, value_dim: int | None = None) -> None:
        super().__init__()
        self.filter = nn.Linear(dim, num_tokens, bias=False)
        self.value = None if value_dim is None else nn.Linear(dim, value_dim, bias=False)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens (b, L, C_T) and their weights over the pixels (b, L, n), from pixels (b, n, C).

        ``tokens`` is not read; `RecurrentTokenizer` reads it.
        """
        return _pool(x, self.filter(x), self.value)


class RecurrentTokenizer(nn.Module):
    """Equation (2): the filters are made from the tokens of the module before.

    Args:
        dim: Channels C of the map.
        token_dim: Channels C_T of the incoming tokens.
        value_dim: Width of W_V; None for tokens of C channels as printed.
    """

    def __init__(self, dim: int, token_dim: int, value_dim: int | None = None) -> None:
        super().__init__()
        self.token_filter = nn.Linear(token_dim, dim, bias=False)
        self.value = None if value_dim is None else nn.Linear(dim, value_dim, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (b, L, C_T) and their weights (b, L, n), from pixels (b, n, C) and tokens (b, L, C_T)."""
        return _pool(x, x @ self.token_filter(tokens).transpose(1, 2), self.value)


def _pool(x: Tensor, logits: Tensor, value: nn.Linear | None) -> tuple[Tensor, Tensor]:
    weights = logits.softmax(1).transpose(1, 2)  # over the pixels: (b, n, L) → (b, L, n)
    tokens = weights @ x
    return tokens if value is None else value(tokens), weights


class TokenTransformer(nn.Module):
    """Equations (3) and (4), tokens (b, L, C_T) → (b, L, C_T): no values, heads, scale or norm, as printed.

    Args:
        dim: Channels C_T.
        attn_dim: Width of K and Q.
        hidden_dim: Width between F₁ and F₂.
    """

    def __init__(self, dim: int, attn_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, attn_dim, bias=False)
        self.query = nn.Linear(dim, attn_dim, bias=False)
        self.fc1 = nn.Linear(dim, hidden_dim, bias=False)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = (self.key(tokens) @ self.query(tokens).transpose(1, 2)).softmax(-1)
        tokens = tokens + weights @ tokens
        return tokens + self.fc2(F.relu(self.fc1(tokens)))


class Projector(nn.Module):
    """Equation (5): each pixel takes from the tokens what it asks for.

    Args:
        dim: Channels C of the map.
        token_dim: Channels C_T of a token. Where it is not C, a matrix C_T × C brings the tokens to the map.
    """

    def __init__(self, dim: int, token_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(token_dim, dim, bias=False)
        self.value = None if token_dim == dim else nn.Linear(token_dim, dim, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map pixels (b, n, C) and tokens (b, L, C_T) to pixels (b, n, C)."""
        # (X W_Q)(T W_K)ᵀ = X (T W_K W_Qᵀ)ᵀ, and a linear layer's weight is W_Qᵀ: L rows instead of n to multiply.
        keys = self.key(tokens) @ self.query.weight
        weights = (x @ keys.transpose(1, 2)).softmax(-1)
        return x + weights @ (tokens if self.value is None else self.value(tokens))


def make_tokenizer(config: VTConfig, index: int) -> nn.Module:
    """The tokenizer of module ``index``: filters in the first, recurrent in the others."""
    dim, value_dim = config.number("map_dim"), config.value_dim(index)
    if index:
        return RecurrentTokenizer(dim, config.number("token_dim"), value_dim)
    return FilterTokenizer(dim, config.number("num_tokens"), value_dim)


class VTModule(nn.Module):
    """Tokenizer, token transformer and projector (figure 1); the last module of a classifier has no projector."""

    def __init__(self, config: VTConfig, index: int, last: bool) -> None:
        super().__init__()
        dim, token_dim = config.number("map_dim"), config.number("token_dim")
        self.tokenizer = make_tokenizer(config, index)
        self.transformer = TokenTransformer(token_dim, config.number("attn_dim"), config.number("hidden_dim"))
        self.projector = None if last else Projector(dim, token_dim)

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels (b, n, C) and the tokens before to pixels, tokens (b, L, C_T) and weights (b, L, n)."""
        tokens, weights = self.tokenizer(x, tokens)
        tokens = self.transformer(tokens)
        return (x if self.projector is None else self.projector(x, tokens)), tokens, weights


class VTResNet(nn.Module):
    """A ResNet whose stage 5 is two or three VT modules (section 3.5); frames (n, c, h, w) → features (n, d).

    The feature is the mean of the last module's tokens.

    Attributes:
        embed_dim: Width d of the feature, which is C_T.
        num_features: The same, under timm's name.
    """

    def __init__(self, config: VTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = self.num_features = config.number("token_dim")
        self.resnet = ResNet(config.resnet, 3, config.in_channels, config.width)
        channels, dim = self.resnet.channels[-1], config.number("map_dim")
        self.widen: nn.Module = nn.Identity()
        if channels != dim:
            self.widen = nn.Sequential(
                nn.Conv2d(channels, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU()
            )
        count = MODULES[config.resnet]
        self.stage5 = nn.ModuleList(VTModule(config, index, index == count - 1) for index in range(count))
        init_truncated_normal(self)

    def tokens(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, L, C_T) and where they look, (n, modules, L, h / 16, w / 16); each map sums to one."""
        grid = self.widen(self.resnet(frames)[-1])
        x, tokens, maps = grid.flatten(2).transpose(1, 2), None, []
        for module in self.stage5:
            x, tokens, weights = module(x, tokens)
            maps.append(weights)
        assert tokens is not None  # every network has modules
        return tokens, torch.stack(maps, 1).reshape(*tokens.shape[:1], len(maps), -1, *grid.shape[-2:])

    def forward(self, frames: Tensor) -> Tensor:
        return self.tokens(frames)[0].mean(1)


class PyramidModule(nn.Module):
    """A VT module over several maps: a tokenizer and a projector for each, and one transformer for the tokens of all.

    Args:
        config: Widths.
        index: Number of the module. In the first the tokenizers are filters; in the others they are recurrent, and
            each makes its weights from the tokens of its level that left the transformer before (equation 2).
    """

    def __init__(self, config: VTConfig, index: int = 0) -> None:
        super().__init__()
        dim, token_dim = config.number("map_dim"), config.number("token_dim")
        self.tokenizers = nn.ModuleList(make_tokenizer(config, index) for _ in range(LEVELS))
        self.transformer = TokenTransformer(token_dim, config.number("attn_dim"), config.number("hidden_dim"))
        self.projectors = nn.ModuleList(Projector(dim, token_dim) for _ in range(LEVELS))

    def exchange(
        self, maps: list[Tensor], before: list[Tensor | None]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Let the maps exchange what their tokens hold.

        Args:
            maps: Pixels (n, h·w, C) of each level.
            before: Tokens (n, L, C_T) of each level that left the module before; None for the first.

        Returns:
            The maps after their projectors, the tokens (n, L, C_T) of each level after the transformer, and the
            tokenizers' weights (n, L, h·w).
        """
        read = [
            tokenizer(x, given) for tokenizer, x, given in zip(self.tokenizers, maps, before, strict=True)
        ]
        tokens = list(self.transformer(torch.cat([own for own, _ in read], 1)).chunk(len(maps), 1))
        projected = [
            projector(x, own) for projector, x, own in zip(self.projectors, maps, tokens, strict=True)
        ]
        return projected, tokens, [weights for _, weights in read]


class VTFPN(PyramidModule):
    """A feature pyramid of tokens (section 3.6), pooled; frames (n, c, h, w) → features (n, d).

    Each of the ResNet's four maps goes through a 1×1 convolution and a tokenizer; the tokens of all levels meet in one
    transformer, and each level's tokens are projected back to its map. The paper segments with these maps; for
    classification they are averaged over space and put side by side, finest first.

    With ``fpn_modules`` above 1, more such modules follow, whose tokenizers are recurrent. The text shows one module
    and names no number, and its figures fit one best. Multiply-adds of the pyramid on ResNet-50 (10⁹) and its
    parameters (10⁶, of which none are published):

    | modules | 800 × 1216 (published 8.5) | 473 × 473 (published 2.0) | parameters |
    |--:|--:|--:|--:|
    | 1 | 8.21 | 1.99 | 5.97 |
    | 2 | 8.96 | 2.23 | 12.00 |

    Attributes:
        embed_dim: Width d of the feature, 4 C.
        num_features: The same, under timm's name.
    """

    def __init__(self, config: VTConfig) -> None:
        super().__init__(config)
        self.config = config
        dim = config.number("map_dim")
        self.resnet = ResNet(config.resnet, LEVELS, config.in_channels, config.width)
        self.embed_dim = self.num_features = dim * LEVELS
        self.laterals = nn.ModuleList(nn.Conv2d(channels, dim, 1) for channels in self.resnet.channels)
        self.later = nn.ModuleList(PyramidModule(config, index) for index in range(1, config.fpn_modules))
        init_truncated_normal(self)

    def _encode(self, frames: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Maps (n, h·w, C) and tokens (n, L, C_T) of each level, weights (n, L, h, w) of each module's levels."""
        grids = [lateral(grid) for grid, lateral in zip(self.resnet(frames), self.laterals, strict=True)]
        maps, looked = [grid.flatten(2).transpose(1, 2) for grid in grids], []
        tokens: list[Any] = [None] * LEVELS
        for module in (self, *self.later):
            maps, tokens, weights = module.exchange(maps, tokens)
            looked += [
                own.reshape(*own.shape[:2], *grid.shape[-2:])
                for own, grid in zip(weights, grids, strict=True)
            ]
        return maps, tokens, looked

    def tokens(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, 4 L, C_T), finest level first, and where they look, (n, 4 · modules, L, h / 4, w / 4).

        Coarser levels' maps are spread over the finest one's pixels; each still sums to one.
        """
        _, tokens, weights = self._encode(frames)
        size = weights[0].shape[-2:]
        spread = torch.stack([F.interpolate(level, size, mode="nearest-exact") for level in weights], 1)
        return torch.cat(tokens, 1), spread / spread.sum((-2, -1), keepdim=True)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([x.mean(1) for x in self._encode(frames)[0]], 1)


class VTFrames(FrameClassifier):
    """``vt-frames``: a Visual Transformer on each frame, logits averaged over them; (b, c, t, h, w) → (b, k)."""

    architecture: ClassVar[str] = "vt-frames"
    backbone: VTResNet | VTFPN

    def __init__(self, config: VTConfig) -> None:
        backbone = VTFPN(config) if config.fpn else VTResNet(config)
        super().__init__(config, backbone, backbone.embed_dim, config.dropout)

    def tokens(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Visual tokens of frames, and where in the picture each of them looks.

        Args:
            frame: Frames (b, c, h, w), normalized as the model's views are.

        Returns:
            The tokens that leave the last transformer, (b, L, C_T), and the tokenizers' weights over space,
            (b, modules, L, h', w'), each map summing to one. For a VT-ResNet h' = h / 16 and the modules are
            those of stage 5 in order; a VT-FPN has four levels in each module, finest first, all shown at
            h' = h / 4, and its tokens are (b, 4 L, C_T).
        """
        return self.backbone.tokens(frame)


def build_backbone(name: str, **config: Any) -> VTResNet | VTFPN:
    """Build a frame encoder, (n, c, h, w) → (n, d), with random weights; d is its ``embed_dim``.

    Args:
        name: One of `VARIANTS`.
        **config: Fields of `VTConfig`.

    Raises:
        ConfigError: No variant or field is called so, or a value makes no model.
    """
    known = [field.name for field in fields(VTConfig) if field.name != "variant"]
    for key in config:
        if key not in known:
            raise ConfigError(
                "backbone",
                f"{name} has no setting {key!r}{nearest(key, known)}",
                f"known are {', '.join(known)}",
            )
    shape = VTConfig(variant=name, **config)
    return VTFPN(shape) if shape.fpn else VTResNet(shape)
