"""Logistic regression on embeddings, its strength chosen by cross-validation; scikit-learn does the fitting."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import DependencyError

Floats = NDArray[np.float64]
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 6))
"""Inverse regularization strengths that are tried, as scikit-learn's ``C``, for standardized embeddings."""
FOLDS = 5


@dataclass(frozen=True)
class Embedded:
    """Embedded clips with their labels.

    Attributes:
        rows: (n, v, d) embeddings of the views that a prediction averages.
        extra: (n, w, d) embeddings to learn from besides, such as mirrored views; w may be 0.
        ids: (n,) class ids.
        groups: (n,) one number for each source of clips.
    """

    rows: NDArray[np.float32]
    extra: NDArray[np.float32]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: NDArray[Any]) -> Embedded:
        """Some of the clips."""
        return Embedded(self.rows[chosen], self.extra[chosen], self.ids[chosen], self.groups[chosen])


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier.

    Attributes:
        weight: (k, d), for embeddings as they are.
        bias: (k,).
        strength: The ``C`` it was fitted with.
    """

    weight: Floats
    bias: Floats
    strength: float

    def logits(self, rows: NDArray[np.float32]) -> Floats:
        """Logits (n, k) of clips (n, v, d), averaged over their views."""
        mean: Floats = rows.astype(np.float64).mean(axis=1)
        logits: Floats = mean @ self.weight.T + self.bias
        return logits


def logistic_regression(**settings: Any) -> Any:
    """scikit-learn's estimator.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise DependencyError(
            "probe", "scikit-learn is not installed", "pip install 'vidcls[train]'"
        ) from None
    return LogisticRegression(max_iter=1000, **settings)


def fit(clips: Embedded, num_classes: int, strength: float, balanced: bool = False) -> LinearProbe:
    """Fit multinomial logistic regression on standardized embeddings.

    Each view is a row of weight 1/views, so that ``strength`` means the same however many views there are. The
    standardization is folded into the weights.

    Args:
        clips: What to learn from; each class need not occur.
        num_classes: Classes, k.
        strength: Inverse strength of the L2 regularization.
        balanced: Weight classes by the inverse of their number of clips.
    """
    views = np.concatenate([clips.rows, clips.extra], axis=1).astype(np.float64)
    x, ids = views.reshape(-1, views.shape[-1]), np.repeat(clips.ids, views.shape[1])
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std < 1e-12] = 1.0
    seen = np.unique(ids)
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -np.inf)
    if len(seen) == 1:
        bias[seen] = 0.0
    else:
        model = logistic_regression(C=strength, class_weight="balanced" if balanced else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence, where the data can be separated and C is large
            model.fit((x - mean) / std, ids, sample_weight=np.full(len(x), 1 / views.shape[1]))
        coefficients, intercepts = model.coef_, model.intercept_
        if len(seen) == 2:  # one row for the second class; halves give the same probabilities by softmax
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight[seen] = coefficients / std
        bias[seen] = intercepts - weight[seen] @ mean
    # A class that was not seen is less likely than any other, but not impossible: its logit must stay finite.
    bias[~np.isfinite(bias)] = bias[np.isfinite(bias)].min() - 20.0
    return LinearProbe(weight, bias, strength)


def folds(clips: Embedded, seed: int, most: int = FOLDS) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Stratified folds, (train, test) indices, that keep each group on one side; none where a class has one group."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(clips.groups[clips.ids == label])) for label in np.unique(clips.ids))
    number = min(most, fewest)
    if number < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kfold = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        return list(kfold.split(np.zeros(len(clips)), clips.ids, clips.groups))


def choose_strength(clips: Embedded, num_classes: int, seed: int, balanced: bool = False) -> float:
    """The strength of least cross-validated log loss; 0.01 where there can be no folds."""
    parts = folds(clips, seed, 4)
    if not parts:
        return 0.01
    losses = []
    for strength in STRENGTHS:
        found = [
            log_loss(fit(clips.take(train), num_classes, strength, balanced), clips.take(test))
            for train, test in parts
        ]
        losses.append(float(np.mean(found)))
        if losses[-1] > 1.5 * min(losses):
            break  # the loss is convex in the strength, but for noise
    return STRENGTHS[int(np.argmin(losses))]


def fit_best(clips: Embedded, num_classes: int, seed: int, balanced: bool = False) -> LinearProbe:
    """Choose the strength by cross-validation, and fit on all clips."""
    return fit(clips, num_classes, choose_strength(clips, num_classes, seed, balanced), balanced)


def log_loss(probe: LinearProbe, clips: Embedded) -> float:
    """Mean negative log-likelihood of clips."""
    logits = probe.logits(clips.rows)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_likelihood = shifted[np.arange(len(clips)), clips.ids] - np.log(np.exp(shifted).sum(axis=1))
    return float(-log_likelihood.mean())


def cross_validated(
    clips: Embedded, num_classes: int, seed: int, balanced: bool = False
) -> tuple[Floats, list[float]] | None:
    """Logits (n, k) of each clip by a classifier that saw neither it nor its group; None where there can be no folds.

    The strength is chosen anew within each fold's training part, so that the figures owe nothing to the choice.

    Returns:
        The logits, and the strength of each fold.
    """
    parts = folds(clips, seed)
    if not parts:
        return None
    logits, strengths = np.zeros((len(clips), num_classes)), []
    for train, test in parts:
        probe = fit_best(clips.take(train), num_classes, seed, balanced)
        logits[test] = probe.logits(clips.rows[test])
        strengths.append(probe.strength)
    return logits, strengths


def learning_curve(
    clips: Embedded, num_classes: int, strength: float, seed: int, balanced: bool = False
) -> Iterator[tuple[float, float]]:
    """Mean number of training clips, and mean cross-validated accuracy, for growing parts of the data."""
    parts, last = folds(clips, seed), 0.0
    for share in (0.25, 0.5, 1.0) if parts else ():
        sizes, right = [], []
        for number, (train, test) in enumerate(parts):
            some = train if share == 1.0 else _part(clips, train, share, seed + number)
            probe = fit(clips.take(some), num_classes, strength, balanced)
            right.append(probe.logits(clips.rows[test]).argmax(axis=1) == clips.ids[test])
            sizes.append(len(some))
        if np.mean(sizes) > last:  # of few groups, a half may be as many as a quarter
            last = float(np.mean(sizes))
            yield last, float(np.concatenate(right).mean())


def _part(clips: Embedded, indices: NDArray[Any], share: float, seed: int) -> NDArray[Any]:
    """About ``share`` of each class's groups among some clips, one at least; a group may be of several classes."""
    rng = np.random.default_rng([seed, 257])
    ids, groups = clips.ids[indices], clips.groups[indices]
    kept = np.zeros(len(indices), bool)
    for label in np.unique(ids):
        own = np.unique(groups[ids == label])
        chosen = rng.permutation(own)[: max(1, round(share * len(own)))]
        kept |= (ids == label) & np.isin(groups, chosen)
    return indices[kept]
