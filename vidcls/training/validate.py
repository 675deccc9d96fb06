"""Validation during training: one central view of each clip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidcls.errors import UsageError, needing
from vidcls.training.data.dataset import Loader
from vidcls.training.losses import class_loss, multi_label_loss
from vidcls.training.recipe import FIGURES, Recipe

SEVERAL = ("map", "top1", "loss")
"""Figures of clips with several labels."""


@dataclass(frozen=True)
class Scores:
    """What a validation came to.

    Attributes:
        values: ``loss``, ``top1``, ``top5``, ``mean_class`` (of the first head), with several heads ``top1`` is
            that of all heads at once, and ``NAME_top1`` each one's. Where clips have several labels: ``loss``, ``map``
            (mean average precision over the classes), and ``top1``, whether the best class is one of the clip's.
        bad: Clips that could not be read.
    """

    values: dict[str, float]
    bad: tuple[tuple[str, str], ...]

    def better(self, other: dict[str, float] | None, figure: str | None) -> bool:
        """Whether this validation is better than another one's values, by a figure of `Recipe.best`, then the loss."""
        name = figure or ("map" if "map" in self.values else "top1")
        mine, theirs = (
            (values[name] * (-1 if name == "loss" else 1), -values["loss"])
            for values in (self.values, other or self.values)
        )
        return other is None or mine > theirs


def check_figures(recipe: Recipe, several: bool, validated: bool) -> None:
    """Refuse what validations are asked for and would not do.

    Args:
        recipe: Its ``best`` and ``patience``.
        several: Clips have several labels each.
        validated: There is something to validate with.

    Raises:
        UsageError: There is no validation, or it has no such figure.
    """
    for name in ("best", "patience"):
        if getattr(recipe, name) is not None and not validated:
            remedy = "leave it out, or give val=LIST"
            raise UsageError(name, "needs validations, and there are no clips to validate with", remedy)
    known = [figure for figure in FIGURES if (figure in SEVERAL if several else figure != "map")]
    if recipe.best is not None and recipe.best not in known:
        raise UsageError(
            "best", f"there is no figure {recipe.best!r} here", f"choose from {', '.join(known)}"
        )


def make_metrics(num_classes: int) -> Any:
    """Accuracies over all processes, for logits (b, k) and ids (b,).

    Raises:
        DependencyError: torchmetrics is not installed.
    """
    with needing("vidcls train", "torchmetrics is not installed", "pip install 'vidcls[train]'"):
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "mean_class": MulticlassAccuracy(num_classes, average="macro"),
        },
        # torchmetrics joins metrics whose states are equal after one batch, and top-1 may equal top-5 there.
        compute_groups=False,
    )


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Loader,
    classes: Sequence[Sequence[str]],
    accelerator: Any,
    *,
    uses_indices: bool = False,
    several: bool = False,
) -> Scores:
    """Score a set with one view a clip.

    Args:
        model: Views (b, c, t, h, w) → logits (b, k).
        loader: The clips.
        classes: Class names of each head.
        accelerator: Devices, precision, and how many processes there are.
        uses_indices: Whether the model takes the frames' numbers.
        several: Whether a clip may have several classes.
    """
    sizes = [len(names) for names in classes]
    scorer = _SeveralScorer(sizes[0], accelerator.device) if several else _Scorer(sizes, accelerator.device)
    bad: list[tuple[str, str]] = []
    training = model.training
    model.eval()
    for part in itertools.chain.from_iterable(loader.epoch(0)):
        bad.extend(part.bad)
        if part.error is not None:
            raise part.error
        if not len(part):
            continue
        part = part.to(accelerator.device)
        with accelerator.autocast():
            logits = model(part.views, part.indices) if uses_indices else model(part.views)
        scorer.add(logits.float(), part.labels)
    model.train(training)
    return Scores(scorer.values(), tuple(bad))


class _Scorer:
    """Loss and accuracies of heads of the given sizes, over all processes."""

    def __init__(self, sizes: list[int], device: torch.device) -> None:
        from torchmetrics import MeanMetric

        self.sizes = sizes
        self.heads = [make_metrics(size).to(device) for size in sizes]
        self.loss, self.right = MeanMetric().to(device), MeanMetric().to(device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        for head, scores in enumerate(logits.split_with_sizes(self.sizes, dim=1)):
            self.heads[head].update(scores, labels[:, head])
        loss, right = class_loss(logits, labels, self.sizes)
        self.loss.update(loss, weight=len(labels))
        self.right.update(right)

    def values(self) -> dict[str, float]:
        values = {name: float(value) for name, value in self.heads[0].compute().items()}
        values["loss"] = float(self.loss.compute())
        if len(self.sizes) > 1:
            values.update({f"head{i}_top1": float(m.compute()["top1"]) for i, m in enumerate(self.heads)})
            values["top1"] = float(self.right.compute())
        return values


class _SeveralScorer:
    """Loss and mean average precision of clips with several labels, over all processes."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MultilabelAveragePrecision

        self.precision = MultilabelAveragePrecision(num_classes, average="none").to(device)
        self.loss, self.right = MeanMetric().to(device), MeanMetric().to(device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        self.precision.update(logits, labels)
        loss, right = multi_label_loss(logits, labels)
        self.loss.update(loss, weight=len(labels))
        self.right.update(right)

    def values(self) -> dict[str, float]:
        # A class without clips has no precision (NaN); it does not count.
        mean = float(self.precision.compute().nanmean())
        return {
            "map": mean if mean == mean else 0.0,
            "top1": float(self.right.compute()),
            "loss": float(self.loss.compute()),
        }
