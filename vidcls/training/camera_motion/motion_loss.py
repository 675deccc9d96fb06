"""Loss on the motion itself, which is known of synthetic clips besides their labels."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAGNIFIED = 4.0
"""Factor on the motion that zoom and roll make in the loss."""


def _compressed(pixels: Tensor) -> Tensor:
    """Motion on a scale that is linear below half a pixel and logarithmic above."""
    return torch.asinh(pixels * 2) / 2


def motion_targets(steps: Tensor, size: int, tubelet_size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """How the picture moves because of the camera: within every tubelet, and as a whole within every time step.

    Args:
        steps: (b, t - 1, 4) steps of the camera; NaN where unknown.
        size: Height and width of the views in pixels.
        tubelet_size: Frames and pixels (t, h, w) of a tubelet.

    Returns:
        (b, t', h' * w', 4) right and down, then the part of that which zoom and roll make, magnified; and (b, t', 4)
        pan, tilt, zoom and roll. All in pixels by `_compressed`, NaN where unknown.
    """
    t, h, w = tubelet_size
    inside = F.pad(steps, (0, 0, 0, 1)).reshape(len(steps), -1, t, 4)[:, :, : t - 1].sum(2)  # (b, t', 4)
    pan, tilt, zoom, roll = inside[:, :, None].unbind(-1)  # each (b, t', 1)
    rows, columns = torch.arange(size // h) + 0.5, torch.arange(size // w) + 0.5
    y, x = torch.meshgrid(rows * h / size - 0.5, columns * w / size - 0.5, indexing="ij")
    x, y = x.flatten(), y.flatten()
    local = torch.stack([zoom * x + roll * y, zoom * y - roll * x], -1)
    flow = torch.stack([-pan + local[..., 0], tilt + local[..., 1]], -1)
    # Zooms and rolls move the picture less than pans do; unmagnified, a token learns the mean motion alone.
    tokens = torch.cat([_compressed(flow * size), _compressed(local * size * MAGNIFIED)], -1)
    return tokens, _compressed(inside * torch.tensor([1.0, 1.0, MAGNIFIED / 2, MAGNIFIED / 2]) * size)


class MotionLoss(nn.Module):
    """Loss on what moves, from linear maps on the spatial encoder that exist in training only.

    The ten labels alone say so little about what to look for that the loss stays at chance for very long. Two linear
    maps break the deadlock: one from every token after the second block to its motion in the picture, one from every
    time step's feature to the camera's motion; both are known since the camera's path is. The maps are thrown away
    after training; the model answers from pixels through its class head alone.

    Args:
        model: A factorized encoder with average pooling and two blocks or more.
        size: Height and width of its views in pixels.
        tubelet_size: Frames and pixels (t, h, w) of its tubelets.
        embed_dim: Its width.
    """

    def __init__(
        self, model: nn.Module, size: int, tubelet_size: tuple[int, int, int], embed_dim: int
    ) -> None:
        super().__init__()
        self.size, self.tubelet_size = size, tubelet_size
        self.token_head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, 4))
        self.step_head = nn.Linear(embed_dim, 4)
        self.seen: dict[str, Tensor] = {}
        for name in ("spatial.blocks.1", "spatial"):
            model.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.seen[name] = output.float()

    def forward(self, steps: Tensor) -> Tensor:
        """Loss of what the model's last forward pass made of the clips with these steps (see `motion_targets`)."""
        flow, motion = motion_targets(steps, self.size, self.tubelet_size)
        guesses = self.token_head(self.seen["spatial.blocks.1"]), self.step_head(self.seen["spatial"])
        losses = []
        for guess, target in zip(guesses, (flow, motion), strict=True):
            known = ~target.isnan()
            losses.append(F.smooth_l1_loss(guess.reshape(target.shape)[known], target[known], beta=0.3))
        return losses[0] + losses[1]
