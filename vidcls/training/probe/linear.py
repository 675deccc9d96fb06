"""A linear classifier on the embeddings of a frozen model, as `vidcls.training.probe.run` fits it."""

from __future__ import annotations

from typing import Any

from torch import nn

from vidcls.inference.embed import Embedder
from vidcls.training.probe.fit import (
    FOLDS,
    Embedded,
    Floats,
    LinearProbe,
    cross_validated,
    fit_best,
    learning_curve,
)
from vidcls.training.recipe import Recipe


class LinearLearner:
    """Fits logistic regressions, see `vidcls.training.probe.fit`.

    Args:
        recipe: Its ``class_weights``, ``folds`` and ``seed`` count.
        embedder: The frozen model.
        num_classes: Classes, k.
    """

    def __init__(self, recipe: Recipe, embedder: Embedder, num_classes: int) -> None:
        self.embedder, self.num_classes, self.seed = embedder, num_classes, recipe.seed
        self.balanced, self.folds = recipe.class_weights is not None, recipe.folds or FOLDS

    def fit(self, clips: Embedded) -> LinearProbe:
        """Choose the strength by cross-validation, and fit on all clips."""
        return fit_best(clips, self.num_classes, self.seed, self.balanced)

    def logits(self, probe: LinearProbe, clips: Embedded) -> Floats:
        """Logits (n, k) of clips."""
        return probe.logits(clips.rows)

    def cross_validated(self, clips: Embedded) -> tuple[Floats, int] | None:
        """See `vidcls.training.probe.fit.cross_validated`."""
        found = cross_validated(clips, self.num_classes, self.seed, self.balanced, self.folds)
        return None if found is None else (found[0], len(found[1]))

    def curve(self, probe: LinearProbe, clips: Embedded) -> list[tuple[float, float]]:
        """See `vidcls.training.probe.fit.learning_curve`."""
        return list(
            learning_curve(clips, self.num_classes, probe.strength, self.seed, self.balanced, self.folds)
        )

    def checkpoint(self, probe: LinearProbe) -> nn.Module:
        """The model with the classifier as its head."""
        return self.embedder.model_with(probe.weight, probe.bias)

    def about(self, probe: LinearProbe) -> dict[str, Any]:
        """What is known of a probe, for the checkpoint."""
        return {"kind": "linear", "strength": probe.strength, "folds": self.folds}
