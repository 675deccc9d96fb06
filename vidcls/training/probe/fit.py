"""Logistic regression on embeddings, its strength chosen by cross-validation; scikit-learn does the fitting.

Clips of one label each get one multinomial regression, clips of several labels one binary regression for each class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import needing
from vidcls.evaluation.multi_label import mean_average_precision

Floats = NDArray[np.float64]
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 6))
"""Inverse regularization strengths that are tried, as scikit-learn's ``C``, for standardized embeddings."""
FOLDS = 5
NEVER = 20.0
"""How far the logit of a class lies from the others', or from zero, where no clip tells it apart."""
AS_GOOD = 0.005
"""Difference of two mean average precisions that tells nothing."""

Regression = Callable[[NDArray[Any]], tuple[Floats, Floats]]
"""Targets of all rows → coefficients and intercepts."""


class Labeled:
    """Clips with their labels.

    Attributes:
        ids: (n,) class ids; of clips with several labels (n, k), whether each shows each class.
        groups: (n,) one number for each source of clips.
    """

    ids: NDArray[Any]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def several(self) -> bool:
        """Whether a clip may have several labels."""
        return self.ids.ndim == 2


@dataclass(frozen=True)
class Embedded(Labeled):
    """Embedded clips with their labels.

    Attributes:
        rows: (n, v, d) embeddings of the views that a prediction averages.
        extra: (n, w, d) embeddings to learn from besides, such as mirrored views; w may be 0.
        ids: See `Labeled`.
        groups: See `Labeled`.
    """

    rows: NDArray[np.float32]
    extra: NDArray[np.float32]
    ids: NDArray[Any]
    groups: NDArray[np.int64]

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
        return mean @ self.weight.T + self.bias


def logistic_regression(**settings: Any) -> Any:
    """scikit-learn's estimator.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    with needing("probe", "scikit-learn is not installed", "pip install 'vidcls[train]'"):
        from sklearn.linear_model import LogisticRegression
    return LogisticRegression(max_iter=1000, **settings)


def fit(clips: Embedded, num_classes: int, strength: float, balanced: bool = False) -> LinearProbe:
    """Fit logistic regression on standardized embeddings.

    Each view is a row of weight 1/views, so that ``strength`` means the same however many views there are. The
    standardization is folded into the weights.

    Args:
        clips: What to learn from; each class need not occur.
        num_classes: Classes, k.
        strength: Inverse strength of the L2 regularization.
        balanced: Weight classes by the inverse of their number of clips.
    """
    views = np.concatenate([clips.rows, clips.extra], axis=1).astype(np.float64)
    count = views.shape[1]
    x, ids = views.reshape(-1, views.shape[-1]), np.repeat(clips.ids, count, axis=0)
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std < 1e-12] = 1.0
    x = (x - mean) / std

    def regression(targets: NDArray[Any]) -> tuple[Floats, Floats]:
        model = logistic_regression(C=strength, class_weight="balanced" if balanced else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence, where the data can be separated and C is large
            model.fit(x, targets, sample_weight=np.full(len(x), 1 / count))
        return model.coef_, model.intercept_

    weight, bias = np.zeros((num_classes, x.shape[1])), np.zeros(num_classes)
    (_one_vs_rest if clips.several else _multinomial)(regression, ids, weight, bias)
    weight /= std
    return LinearProbe(weight, bias - weight @ mean, strength)


def _multinomial(regression: Regression, ids: NDArray[Any], weight: Floats, bias: Floats) -> None:
    """Fill weights (k, d) and biases (k,) for softmax.

    A class that was not seen is less likely than any other, but not impossible: its logit stays finite.
    """
    seen = np.unique(ids)
    if len(seen) > 1:
        coefficients, intercepts = regression(ids)
        if len(seen) == 2:  # one row for the second class; halves give the same probabilities by softmax
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight[seen], bias[seen] = coefficients, intercepts
    bias[~np.isin(np.arange(len(bias)), seen)] = bias[seen].min() - NEVER


def _one_vs_rest(regression: Regression, shown: NDArray[Any], weight: Floats, bias: Floats) -> None:
    """Fill weights (k, d) and biases (k,) for a sigmoid of each class."""
    for k, column in enumerate(shown.T):
        if column.all() or not column.any():
            bias[k] = NEVER if column.any() else -NEVER
        else:
            coefficients, intercepts = regression(column)
            weight[k], bias[k] = coefficients[0], intercepts[0]


def _strata(clips: Labeled) -> NDArray[np.int64]:
    """What folds are stratified by: the class, or nothing where clips have several labels."""
    return np.zeros(len(clips), np.int64) if clips.several else clips.ids


def sources(clips: Labeled) -> dict[int, int]:
    """Class id → how many groups its clips are of; clips of several labels count as one class."""
    strata = _strata(clips)
    return {int(label): len(np.unique(clips.groups[strata == label])) for label in np.unique(strata)}


def measurable(clips: Labeled) -> NDArray[np.bool_]:
    """Which clips (n,) folds can test: those of classes with two groups or more, where there are two such classes."""
    found = sources(clips)
    wide = [label for label, count in found.items() if count > 1]
    if len(wide) < min(2, len(found)):
        return np.zeros(len(clips), bool)
    return np.isin(_strata(clips), wide)


def folds(clips: Labeled, seed: int, most: int = FOLDS) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Folds, (train, test) indices, that keep each group on one side; none where nothing is `measurable`.

    They are stratified by the class; those of clips with several labels are not. Clips of a class with one group are
    never tested: they are on the training side, unless their group is tested.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    tested = np.flatnonzero(measurable(clips))
    if not len(tested):
        return []
    strata, groups = _strata(clips)[tested], clips.groups[tested]
    number = min(most, *(count for count in sources(clips).values() if count > 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kfold = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        parts = [tested[test] for _, test in kfold.split(np.zeros(len(tested)), strata, groups)]
    return [(np.flatnonzero(~np.isin(clips.groups, clips.groups[test])), test) for test in parts]


def choose_strength(clips: Embedded, num_classes: int, seed: int, balanced: bool = False) -> float:
    """The strength of the least log loss in cross-validation; 0.01 where there can be no folds.

    Of clips with several labels, it is the one of least log loss among those whose mAP is as good as the best: a mAP
    tells nothing of how far scores lie from one half.
    """
    parts = folds(clips, seed, 4)
    if not parts:
        return 0.01
    found: list[NDArray[Any]] = []
    for strength in STRENGTHS:
        each = [
            _losses(fit(clips.take(train), num_classes, strength, balanced), clips.take(test))
            for train, test in parts
        ]
        found.append(np.mean(each, axis=0))
        if not clips.several and found[-1][1] > 1.5 * min(losses[1] for losses in found):
            break  # the loss is convex in the strength, but for noise
    misses, losses = np.array(found).T
    return STRENGTHS[int(np.where(misses <= misses.min() + AS_GOOD, losses, np.inf).argmin())]


def fit_best(clips: Embedded, num_classes: int, seed: int, balanced: bool = False) -> LinearProbe:
    """Choose the strength by cross-validation, and fit on all clips."""
    return fit(clips, num_classes, choose_strength(clips, num_classes, seed, balanced), balanced)


def _losses(probe: LinearProbe, clips: Embedded) -> tuple[float, float]:
    """What is missing to a mAP of 1 (0 of clips with one label each), and the mean negative log-likelihood."""
    logits = probe.logits(clips.rows)
    if clips.several:
        each = np.logaddexp(0.0, np.where(clips.ids, -logits, logits))
        return 1.0 - mean_average_precision(logits, clips.ids), float(each.mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_likelihood = shifted[np.arange(len(clips)), clips.ids] - np.log(np.exp(shifted).sum(axis=1))
    return 0.0, float(-log_likelihood.mean())


def success(logits: Floats, ids: NDArray[Any]) -> float:
    """Accuracy of logits (n, k) for class ids (n,), or mean average precision for classes shown (n, k)."""
    return (
        mean_average_precision(logits, ids) if ids.ndim == 2 else float((logits.argmax(axis=1) == ids).mean())
    )


def cross_validated(
    clips: Embedded, num_classes: int, seed: int, balanced: bool = False, most: int = FOLDS
) -> tuple[Floats, list[float]] | None:
    """Logits (n, k) of each clip by a classifier that saw neither it nor its group; None where there can be no folds.

    They are zero where a clip is not `measurable`. The strength is chosen anew within each fold's training part, so
    that the figures owe nothing to the choice.

    Returns:
        The logits, and the strength of each fold.
    """
    parts = folds(clips, seed, most)
    if not parts:
        return None
    logits, strengths = np.zeros((len(clips), num_classes)), []
    for train, test in parts:
        probe = fit_best(clips.take(train), num_classes, seed, balanced)
        logits[test] = probe.logits(clips.rows[test])
        strengths.append(probe.strength)
    return logits, strengths


def learning_curve(
    clips: Embedded, num_classes: int, strength: float, seed: int, balanced: bool = False, most: int = FOLDS
) -> Iterator[tuple[float, float]]:
    """Mean number of training clips, and cross-validated accuracy (or mAP), for growing parts of the data."""
    parts, last, tested = folds(clips, seed, most), 0, measurable(clips)
    for share in (0.25, 0.5, 1.0) if parts else ():
        logits, sizes = np.zeros((len(clips), num_classes)), []
        for number, (train, test) in enumerate(parts):
            some = train if share == 1.0 else _part(clips, train, share, seed + number)
            logits[test] = fit(clips.take(some), num_classes, strength, balanced).logits(clips.rows[test])
            sizes.append(len(some))
        if round(np.mean(sizes)) > last:  # of few groups, a half may be as many as a quarter
            last = round(np.mean(sizes))
            yield float(np.mean(sizes)), success(logits[tested], clips.ids[tested])


def _part(clips: Embedded, indices: NDArray[Any], share: float, seed: int) -> NDArray[Any]:
    """About ``share`` of each class's groups among some clips, one at least; a group may be of several classes."""
    rng = np.random.default_rng([seed, 257])
    groups = clips.groups[indices]
    strata = np.zeros(len(indices), np.int64) if clips.several else clips.ids[indices]
    kept = np.zeros(len(indices), bool)
    for label in np.unique(strata):
        own = np.unique(groups[strata == label])
        chosen = rng.permutation(own)[: max(1, round(share * len(own)))]
        kept |= (strata == label) & np.isin(groups, chosen)
    return indices[kept]
