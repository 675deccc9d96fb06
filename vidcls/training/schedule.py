"""The learning-rate schedule of a recipe."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from vidcls.config import Spec


class Schedule(Spec):
    """The learning rate over time, as a factor on its base; updated at each step, with fractional epochs.

    Attributes:
        kind: ``cosine`` to zero, ``steps``, or ``constant``; each after the warm-up.
        epochs: Length of the training.
        warmup_epochs: Linear growth from zero.
        steps: Epochs at which the factors begin (``steps``).
        factors: One factor for each of ``steps``.
    """

    kind: Literal["cosine", "steps", "constant"] = "cosine"
    epochs: int = Field(30, ge=1)
    warmup_epochs: float = Field(0.0, ge=0)
    steps: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _steps_with_factors(self) -> Schedule:
        if self.kind == "steps" and (len(self.steps) != len(self.factors) or not self.steps):
            raise ValueError("steps and factors must be lists of the same length")
        if self.kind == "steps" and (self.steps[0] != 0 or list(self.steps) != sorted(self.steps)):
            raise ValueError("steps must begin at epoch 0 and grow")
        return self

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Factor on the base learning rate at ``step`` (0-based count of optimizer steps).

        Warm-up and cosine as scenic's ``compound`` schedule: ``min(1, step / warmup)`` times a half cosine over
        what is left; steps as SlowFast's ``steps_with_relative_lrs``.
        """
        warmup = int(self.warmup_epochs * steps_per_epoch)
        total = self.epochs * steps_per_epoch
        factor = min(1.0, step / warmup) if warmup else 1.0
        if self.kind == "cosine":
            progress = max(0, step - warmup) / max(1, total - warmup)
            return factor * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        if self.kind == "steps":
            epoch = step / steps_per_epoch
            return factor * [f for s, f in zip(self.steps, self.factors, strict=True) if s <= epoch][-1]
        return factor
