"""TimeSformer: five ways to spread self-attention over space and time.

Bertasius, Wang, Torresani: "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021, section 3
and figure 2. Space-only, joint and divided attention follow the released code (facebookresearch/TimeSformer,
``timesformer/models/vit.py``); sparse local-global and axial attention exist in the paper only, and what it does
not say about them is decided here, in the docstrings of their blocks.

Frames are cut into patches one by one. The class token comes first, then the patches with *time fastest*: token
``1 + (y * w + x) * t + f`` is patch (y, x) of frame f. All blocks are pre-norm; the class token is classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.layers import (
    Attention,
    Classifier,
    DropPath,
    Mlp,
    block_of,
    init_truncated_normal,
    linear_drop_path,
    run_blocks,
    skips_unread,
)
from vidcls.models.sizes import pair
from vidcls.models.timesformer_config import TimeSformerConfig
from vidcls.models.vit import PatchEmbed

Grid = tuple[int, int, int]  # patches along (t, h, w)


class StepBlock(nn.Module):
    """A block whose attention runs in several steps, each with projections of its own; what they share.

    The last step is an image ViT's own attention (``norm1``, ``attn``). Each step before it has its norm, its
    attention, and behind them one more linear layer that starts at zero, as released for divided attention: at
    the start the block does what the image ViT's block does. That linear layer is not in the paper's equations,
    but its parameter counts (121.4 M and 156.8 M) come out with it only.
    """

    early_steps: ClassVar[tuple[str, ...]]

    def __init__(self, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        for prefix in (*(f"{name}_" for name in self.early_steps), ""):
            attention = Attention(dim, config.num_heads, config.qkv_bias, config.dropout, config.attn_dropout)
            self.add_module(f"{prefix}norm1", nn.LayerNorm(dim, eps=config.norm_eps))
            self.add_module(f"{prefix}attn", attention)
            if prefix:
                self.add_module(f"{prefix}fc", nn.Linear(dim, dim))
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = Mlp(dim, round(dim * config.mlp_ratio), config.activation, config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, cls_only: bool = False) -> Tensor:
        """Map tokens (b, 1 + h·w·t, d), time fastest, to the same shape.

        With ``cls_only`` the result is the class token, (b, 1, d), and what it does not need may be left out.
        """
        raise NotImplementedError

    def attention(self, step: str, sequences: Tensor, first_only: bool = False) -> Tensor:
        """What one step's attention adds to the tokens of each sequence, (s, m, d) → (s, m, d).

        With ``first_only`` it is what is added to the first of each, (s, 1, d).
        Stochastic depth drops single sequences here, not whole clips, as released.
        """
        prefix = "" if step == "last" else f"{step}_"
        norm: nn.Module = getattr(self, f"{prefix}norm1")
        attn: Attention = getattr(self, f"{prefix}attn")
        attended = attn.first(norm(sequences)) if first_only else attn(norm(sequences))
        out: Tensor = self.drop_path(attended)
        return getattr(self, f"{prefix}fc")(out) if prefix else out

    def grouped_attention(
        self, step: str, cls: Tensor, groups: Tensor, cls_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Let the patches of each group attend to each other and to the class token.

        Args:
            step: One of ``early_steps``, or "last".
            cls: Class token (b, 1, d); each group gets a copy.
            groups: Patches (b, g, m, d): g groups of m.
            cls_only: Leave out what is added to the patches.

        Returns:
            What to add to the class token, (b, 1, d), the mean over its copies; and to the patches, (b, g, m, d), or
            nothing, (b, g, 0, d).
        """
        b, g, _, d = groups.shape
        sequences = torch.cat([cls.unsqueeze(1).expand(b, g, 1, d), groups], dim=2)
        out = self.attention(step, sequences.flatten(0, 1), cls_only).view(b, g, -1, d)
        return out[:, :, 0].mean(dim=1, keepdim=True), out[:, :, 1:]

    def feed_forward(self, cls: Tensor, patches: Tensor, cls_only: bool = False) -> Tensor:
        """Join the tokens (b, 1, d) and (b, n, d), and add the MLP's residual; or that of the class token alone."""
        x = cls if cls_only else torch.cat([cls, patches], dim=1)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DividedBlock(StepBlock):
    """Divided attention (T+S): over time at each location, then over space in each frame.

    Paper, section 3, in the form of the released code: the class token takes no part in the step over time, and
    what the step over space adds to it is the mean over the frames.
    """

    early_steps: ClassVar[tuple[str, ...]] = ("temporal",)

    def forward(self, x: Tensor, grid: Grid, cls_only: bool = False) -> Tensor:
        cls, patches = x[:, :1], torch.unflatten(x[:, 1:], 1, (-1, grid[0]))  # (b, n, t, d)
        over_time = self.attention("temporal", patches.flatten(0, 1))
        patches = patches + over_time.view(patches.shape)
        cls_add, patches_add = self.grouped_attention(
            "last", cls, patches.transpose(1, 2), cls_only
        )  # by frame
        if cls_only:
            return self.feed_forward(cls + cls_add, patches_add, cls_only)
        return self.feed_forward(cls + cls_add, (patches + patches_add.transpose(1, 2)).flatten(1, 2))


class LocalGlobalBlock(StepBlock):
    """Sparse local-global attention (L+G): to the neighborhood, then to every second patch of the clip.

    Paper, section 3: first the neighboring F × H/2 × W/2 patches, then the whole clip with a stride of two
    patches in time and in both directions of space. It says no more, so these are our choices:

    - A neighborhood is a quadrant of the picture over all frames, not a window that slides with the patch: all
      patches have the same number of keys, at the border too. An odd side is cut into ceil and floor of its half.
    - The stride counts from the patch itself: it attends to the patches whose frame, row and column all differ
      from its own by even numbers. So it sees itself, and two steps reach every patch of the clip.
    - Both steps see the class token, as the paper counts keys (393 + 197 for 8 × 14 × 14 patches). The class token
      attends once in each group; the mean over the groups is added to it, as released for divided attention.
    """

    early_steps: ClassVar[tuple[str, ...]] = ("local",)

    def forward(self, x: Tensor, grid: Grid, cls_only: bool = False) -> Tensor:
        x = self.set_step("local", x, quadrants(grid, x.device))
        x = self.set_step("last", x, phases(grid, x.device))
        return self.feed_forward(x[:, :1], x[:, 1:], cls_only)

    def set_step(self, step: str, x: Tensor, groups: Sequence[Tensor]) -> Tensor:
        """One step over groups of patches that are given by number, (b, 1 + n, d) → (b, 1 + n, d).

        Args:
            step: One of ``early_steps``, or "last".
            x: All tokens.
            groups: int64 tensors (g, m), g groups of m patches; together they name each patch once.
        """
        cls, patches = x[:, :1], x[:, 1:]
        outs = [self.grouped_attention(step, cls, patches[:, index]) for index in groups]
        count = sum(len(index) for index in groups)
        cls_add = torch.cat([out[0] * (len(i) / count) for out, i in zip(outs, groups, strict=True)], dim=1)
        patches_add = torch.cat([out[1].flatten(1, 2) for out in outs], dim=1)
        place = torch.cat([index.flatten() for index in groups]).argsort()
        return x + torch.cat([cls_add.sum(dim=1, keepdim=True), patches_add[:, place]], dim=1)


class AxialBlock(StepBlock):
    """Axial attention (T+W+H): along time, then along the row, then along the column.

    Paper, section 3, each step with projections of its own. The class token is our choice: as the paper counts
    keys (9 + 15 + 15 for 8 × 14 × 14 patches), all three steps see it. It attends once along each line, and the
    mean over the lines is added to it, as released for divided attention.
    """

    early_steps: ClassVar[tuple[str, ...]] = ("temporal", "width")

    def forward(self, x: Tensor, grid: Grid, cls_only: bool = False) -> Tensor:
        t, h, w = grid
        cls, patches = x[:, :1], torch.unflatten(x[:, 1:], 1, (h, w, t))
        cls, patches = self.line_step("temporal", cls, patches, along=3)
        cls, patches = self.line_step("width", cls, patches, along=2)
        cls, patches = self.line_step("last", cls, patches, along=1)
        return self.feed_forward(cls, patches.flatten(1, 3), cls_only)

    def line_step(self, step: str, cls: Tensor, patches: Tensor, along: int) -> tuple[Tensor, Tensor]:
        """One step along an axis of the patches; class token (b, 1, d) and patches (b, h, w, t, d), in and out."""
        lines = patches.movedim(along, 3)
        cls_add, lines_add = self.grouped_attention(step, cls, lines.flatten(1, 2))
        return cls + cls_add, patches + lines_add.view(lines.shape).movedim(3, along)


def quadrants(grid: Grid, device: torch.device) -> list[Tensor]:
    """Numbers of the patches in each quadrant of the picture, over all frames; (g, m) for each size m."""
    t, h, w = grid
    numbers = torch.arange(h * w * t, device=device).view(h, w, t)
    rows = (slice(0, (h + 1) // 2), slice((h + 1) // 2, h))
    columns = (slice(0, (w + 1) // 2), slice((w + 1) // 2, w))
    return _stack_equal([numbers[row, column].flatten() for row in rows for column in columns])


def phases(grid: Grid, device: torch.device) -> list[Tensor]:
    """Numbers of the patches whose row, column and frame are alike even or odd; (g, m) for each size m."""
    t, h, w = grid
    numbers = torch.arange(h * w * t, device=device).view(h, w, t)
    return _stack_equal([numbers[y::2, x::2, f::2].flatten() for y in (0, 1) for x in (0, 1) for f in (0, 1)])


def _stack_equal(groups: Sequence[Tensor]) -> list[Tensor]:
    """Stack what has the same length, so that even grids need one attention call; leave out what is empty."""
    sizes = sorted({len(group) for group in groups} - {0}, reverse=True)
    return [torch.stack([group for group in groups if len(group) == size]) for size in sizes]


def resize_nearest_1d(embeddings: Tensor, length: int) -> Tensor:
    """Pick ``length`` of n embeddings (1, n, d) → (1, length, d): number i is the old number ⌊i · n / length⌋."""
    if embeddings.shape[1] == length:
        return embeddings
    return F.interpolate(embeddings.transpose(1, 2), size=length, mode="nearest").transpose(1, 2)


def resize_places(positions: Tensor, places: int) -> Tensor:
    """Resize position embeddings (1, 1 + n, d) to (1, 1 + places, d): nearest over the flat row of patches."""
    return torch.cat([positions[:, :1].float(), resize_nearest_1d(positions[:, 1:].float(), places)], dim=1)


class TimeSformer(Classifier):
    """What the five schemes share: embeddings, norm and classifier. Views (b, c, t, h, w) → logits (b, k).

    The logits come without softmax, in training and in evaluation.
    """

    has_time: ClassVar[bool] = True

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__(config)
        dim, (grid_height, grid_width) = config.embed_dim, config.grid_size
        self.patch_embed = PatchEmbed(config.in_channels, dim, pair(config.patch_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid_height * grid_width, dim))
        if self.has_time:
            self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, dim))
        self.drop = nn.Dropout(config.dropout)
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(self.make_block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.head = nn.Linear(dim, config.num_classes)
        self._init_weights()

    @staticmethod
    def make_block(config: TimeSformerConfig, drop_path: float) -> nn.Module:
        """Build one block of this scheme."""
        raise NotImplementedError

    def encode(self, cls: Tensor, patches: Tensor, grid: Grid) -> Tensor:
        """Run the blocks: class token (b, 1, d) and patches (b, n, t, d) → class token (b, d)."""
        x = torch.cat([cls, patches.flatten(1, 2)], dim=1)
        for number, block in enumerate(self.blocks):
            # The patches' last values are read by nothing.
            x = block(x, grid, cls_only=number == len(self.blocks) - 1 and skips_unread())
        return x[:, 0]

    def _init_weights(self) -> None:
        """Initialize as released: normals cut at 0.02; biases, time and the early steps' ``*_fc`` zero."""
        init_truncated_normal(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear) and name.endswith("_fc"):
                nn.init.zeros_(module.weight)

    def positions(self, grid: Grid) -> Tensor:
        """Embeddings of the patches' places, (1, n, t, d), or (1, n, 1, d) without time.

        Views of another size than the parameters are met as in the released forward pass: where the *number* of
        patches differs, the places are resized as a picture, nearest in 2-D, to any shape; the times nearest in
        1-D. A checkpoint loaded into a model of another size goes by another rule, see
        `vidcls.checkpoints.timesformer_fb`.
        """
        t, h, w = grid
        places = self.pos_embed[:, 1:]
        if places.shape[1] != h * w:
            picture = torch.unflatten(places.transpose(1, 2), 2, self.config.grid_size)
            places = F.interpolate(picture, size=(h, w), mode="nearest").flatten(2).transpose(1, 2)
        places = places.unsqueeze(2)
        return places + resize_nearest_1d(self.time_embed, t).unsqueeze(1) if self.has_time else places

    def forward_features(self, views: Tensor) -> Tensor:
        """Class token behind the last norm, (b, c, t, h, w) → (b, d): what the classifier sees."""
        b, _, t, height, width = views.shape
        patch_height, patch_width = pair(self.config.patch_size)
        grid = (t, height // patch_height, width // patch_width)
        if not self.config.any_size and grid != (self.config.num_frames, *self.config.grid_size):
            raise ConfigError(
                self.architecture,
                f"was built for {self.config.num_frames} frames of {self.config.image_size} pixels (h, w), and "
                f"this checkpoint's publisher defines nothing for {t} of {(height, width)}",
                "resize the views, or load the checkpoint with num_frames= and image_size=",
            )
        patches = self.patch_embed(views.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t))  # (b, t, n, d)
        patches = self.drop(patches.transpose(1, 2) + self.positions(grid))
        # Frames have a class token each in the released code, all alike; the place is added, but no time.
        cls = self.drop((self.cls_token + self.pos_embed[:, :1]).expand(b, -1, -1))
        return self.norm(self.encode(cls, patches, grid))

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.head(self.forward_features(views))


class DividedTimeSformer(TimeSformer):
    """Divided space-time attention (T+S), the paper's own; all released checkpoints are of this scheme."""

    architecture: ClassVar[str] = "timesformer-divided"
    make_block = DividedBlock


class LocalGlobalTimeSformer(TimeSformer):
    """Sparse local-global attention (L+G); `LocalGlobalBlock` says what the paper leaves open."""

    architecture: ClassVar[str] = "timesformer-local-global"
    make_block = LocalGlobalBlock


class AxialTimeSformer(TimeSformer):
    """Axial attention (T+W+H); `AxialBlock` says what the paper leaves open."""

    architecture: ClassVar[str] = "timesformer-axial"
    make_block = AxialBlock


class JointTimeSformer(TimeSformer):
    """Joint space-time attention (ST): every token to every token, one class token for the clip."""

    architecture: ClassVar[str] = "timesformer-joint"
    make_block = staticmethod(block_of)

    def encode(self, cls: Tensor, patches: Tensor, grid: Grid) -> Tensor:
        """Run the blocks: class token (b, 1, d) and patches (b, n, t, d) → class token (b, d)."""
        x = torch.cat([cls, patches.flatten(1, 2)], dim=1)
        return run_blocks(self.blocks, x, True)[:, 0]


class SpaceTimeSformer(TimeSformer):
    """Space-only attention (S): an image ViT on each frame, averaged over the frames *before* the last norm."""

    architecture: ClassVar[str] = "timesformer-space"
    has_time: ClassVar[bool] = False
    make_block = staticmethod(block_of)

    def encode(self, cls: Tensor, patches: Tensor, grid: Grid) -> Tensor:
        """Run the blocks: class token (b, 1, d) and patches (b, n, t, d) → mean class token (b, d)."""
        b, t = cls.shape[0], grid[0]
        x = torch.cat([cls.unsqueeze(1).expand(b, t, -1, -1), patches.transpose(1, 2)], dim=2).flatten(0, 1)
        return run_blocks(self.blocks, x, True)[:, 0].view(b, t, -1).mean(dim=1)
