"""``vidcls train --probe``: embed each clip once, fit a classifier, say how good it is, write a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vidcls.config import load_registry
from vidcls.engines.embedding import ALL_TOKENS, EmbeddingRequest
from vidcls.errors import UsageError, counted
from vidcls.inference.embed import Embedder
from vidcls.inference.feature_store import EmbeddingCache
from vidcls.inference.load import load_embedder
from vidcls.paths import cache_dir
from vidcls.training import checkpointing, logs
from vidcls.training.data.augment import without_wrong_flips
from vidcls.training.data.sets import Data, load_data
from vidcls.training.probe import figures
from vidcls.training.probe.embedding import Embedding
from vidcls.training.probe.fit import Embedded, Floats, logistic_regression, measurable, sources
from vidcls.training.probe.keys import check_keys
from vidcls.training.probe.linear import LinearLearner
from vidcls.training.probe.report import write_report
from vidcls.training.probe.tokens import TokenCache, TokenSet
from vidcls.training.recipe import Recipe


class Learner(Protocol):
    """A way to fit a classifier on what a frozen model makes of clips."""

    def fit(self, clips: Any) -> Any:
        """Fit on clips."""

    def logits(self, fitted: Any, clips: Any) -> Floats:
        """Logits (n, k) of clips."""

    def cross_validated(self, clips: Any) -> tuple[Floats, int] | None:
        """Logits (n, k) of each clip by a classifier that saw neither it nor its group, and the number of folds."""

    def curve(self, fitted: Any, clips: Any) -> list[tuple[float, float]]:
        """Numbers of training clips, and how good a classifier of so many is."""

    def checkpoint(self, fitted: Any) -> nn.Module:
        """The frozen model with the classifier."""

    def about(self, fitted: Any) -> dict[str, Any]:
        """What is known of the classifier, for the checkpoint."""


@dataclass(frozen=True)
class ProbeResult:
    """The outcome of a probe.

    Attributes:
        weights: The checkpoint.
        probe: The classifier in it: a `vidcls.training.probe.fit.LinearProbe`, or the weights of pooler and head.
        figures: How good it is on clips that it had not seen; None where there were too few to tell.
        bad_clips: How many clips could not be read.
    """

    weights: Path
    probe: Any
    figures: figures.Figures | figures.SeveralFigures | None
    bad_clips: int


def train_probe(recipe: Recipe, out: Path, *, device: str = "auto", quiet: bool = False) -> ProbeResult:
    """Fit a classifier on what a frozen model makes of clips: a linear one, or with ``attentive`` a pooler and a head.

    Args:
        recipe: See `vidcls.training.probe.keys` for what of it counts; ``augment.flip``, where given, adds mirrored
            views.
        out: The run's folder; what a probe wrote there before is replaced.
        device: Where the model runs.
        quiet: Print nothing but warnings.

    Raises:
        UsageError: The data has mistakes, fewer than two classes, or the recipe keys that a probe does not take.
        DependencyError: scikit-learn is not installed.
        OutputError: The run's files cannot be written.
    """
    started = time.perf_counter()
    if (out / checkpointing.STATE).exists():
        raise UsageError(str(out), "holds a training run", "name another output=FOLDER")
    with checkpointing.run_folder(out):
        embedder, data = _checked(recipe, device)
        say = (lambda text: None) if quiet else logs.message
        for note in data.notes:
            say(note)
        bad = logs.BadClips(out / logs.BAD_CLIPS, fresh=True)
        mirrors = _mirrors(recipe, data.labels, say)
        work = _embedding(recipe, embedder.mirroring() if mirrors else embedder, data, bad, quiet)
        train, val = _embedded(work, data, recipe.attentive)
        took = time.perf_counter() - started
        say(f"embedded {work.made} clips in {took:.1f} s, {work.found} were in the cache")
        learner = _learner(recipe, embedder, data, quiet)
        probe = learner.fit(train)
        found = _measure(learner, probe, train, val, data.labels, recipe.folds)
        for line in figures.lines(found, data.labels) if found else _nothing(train, data.labels):
            say(line)
        weights = _write(out, embedder, learner, probe, data, recipe, found)
        say(f"finished in {time.perf_counter() - started:.1f} s")
        return ProbeResult(weights, probe, found, len(bad))


def check_probe(recipe: Recipe, *, device: str = "auto") -> Data:
    """Check what a probe needs, without embedding anything; arguments and errors as for `train_probe`.

    Returns:
        The clips.
    """
    embedder, data = _checked(recipe, device)
    embedder.close()
    return data


def _checked(recipe: Recipe, device: str) -> tuple[Embedder, Data]:
    """The frozen model and the clips."""
    logistic_regression()
    check_keys(recipe)
    embedder = _embedder(recipe, device)
    data = load_data(recipe, embedder.spec, hold_out=False)
    if recipe.heads or data.train is None:
        raise UsageError(
            "probe",
            "needs clips with one label each, or several of one kind",
            "name a list or a folder of clips",
        )
    if recipe.attentive and recipe.folds is not None and data.val is not None:
        raise UsageError("folds", "there is no cross-validation beside a validation set", "leave it out")
    return embedder, data


def _embedder(recipe: Recipe, device: str) -> Embedder:
    # Logits are averaged over views: a linear classifier of mean embeddings is that, and no softmax in between.
    view = {**recipe.input, "average": "logits"}
    model, weights = recipe.model, recipe.init.source
    if weights is not None and model is None and weights in load_registry(recipe.registry):
        model, weights = weights, None
    return load_embedder(
        EmbeddingRequest(ALL_TOKENS if recipe.attentive else "head", "view"),
        model=model,
        weights=weights,
        registry=recipe.registry,
        device=device,
        engine="eager",
        precision="fp32",
        **view,
    )


def _mirrors(recipe: Recipe, labels: Sequence[str], say: Callable[[str], None]) -> bool:
    """Whether mirrored views are learned from: only where the recipe asks for flips, since left may mean left."""
    if "flip" not in recipe.augment.model_fields_set:
        return False
    augment, note = without_wrong_flips(recipe.augment, labels)
    if note is not None:
        say(note)
    return augment.flip > 0 and not augment.directions_matter


def _embedding(recipe: Recipe, embedder: Embedder, data: Data, bad: logs.BadClips, quiet: bool) -> Embedding:
    """What embeds the clips, with its cache."""
    settings = {**embedder.settings(), "mirrored": embedder.request.mirrored}
    cache = EmbeddingCache(cache_dir() / "embeddings", settings)
    if recipe.attentive:
        clips = sum(len(part[0]) for part in (data.train, data.val) if part is not None)
        cache = TokenCache(cache_dir() / "tokens", settings, int(recipe.token_cache * 1e9), clips)
    return Embedding(embedder, cache, bad, recipe.workers, quiet)


def _embedded(
    work: Embedding, data: Data, attentive: bool
) -> tuple[Embedded | TokenSet, Embedded | TokenSet | None]:
    """What the model makes of the training and the validation clips."""
    embed: Callable[..., Embedded | TokenSet] = work.tokens if attentive else work.vectors
    assert data.train is not None
    train = embed(data.train[0], _targets(data, data.train[1]), "training clips")
    if data.val is None:
        return train, None
    return train, embed(data.val[0], _targets(data, data.val[1]), "validation clips")


def _targets(data: Data, ids: Sequence[tuple[int, ...]]) -> NDArray[Any]:
    """Class ids (n,), or which classes each clip shows (n, k)."""
    if not data.several:
        return np.array([own[0] for own in ids])
    shown = np.zeros((len(ids), len(data.labels)), bool)
    for row, own in zip(shown, ids, strict=True):
        row[list(own)] = True
    return shown


def _learner(recipe: Recipe, embedder: Embedder, data: Data, quiet: bool) -> Learner:
    if not recipe.attentive:
        return LinearLearner(recipe, embedder, len(data.labels))
    from vidcls.training.probe.attentive import AttentiveLearner

    return AttentiveLearner(recipe, embedder, len(data.labels), quiet)


def _measure(
    learner: Learner, probe: Any, train: Any, val: Any, labels: Sequence[str], folds: int | None
) -> figures.Figures | figures.SeveralFigures | None:
    """Figures on the validation set, or else by cross-validation in ``folds`` parts."""
    notes: list[str] = []
    if val is not None:
        logits, ids, groups, method = learner.logits(probe, val), val.ids, val.groups, "validation set"
    else:
        crossed = learner.cross_validated(train)
        if crossed is None:
            return None
        tested = measurable(train)
        logits, ids, groups = crossed[0][tested], train.ids[tested], train.groups[tested]
        method = f"{crossed[1]}-fold cross-validation"
        notes += [] if train.several else figures.unmeasured(sources(train), train.ids, labels)
        if folds is not None and crossed[1] < folds:
            few = "the clips are" if train.several else "the smallest class that can be measured is"
            notes.append(f"{crossed[1]} folds, not {folds}: {few} of {counted(crossed[1], 'source')}")
    curve = learner.curve(probe, train)
    if train.several:
        return figures.measure_several(method, logits, ids, groups, labels, curve, notes)
    return figures.measure(method, logits, ids, groups, curve, notes)


def _nothing(train: Any, labels: Sequence[str]) -> list[str]:
    """Why there are no figures, and what to do."""
    remedy = "give each class clips of two sources or more, or a validation set with val=LIST"
    return [
        f"too few clips, or sources of them, to tell how good it is; {remedy}",
        *([] if train.several else figures.unmeasured(sources(train), train.ids, labels)),
    ]


def _write(
    out: Path,
    embedder: Embedder,
    learner: Learner,
    probe: Any,
    data: Data,
    recipe: Recipe,
    found: figures.Figures | figures.SeveralFigures | None,
) -> Path:
    """Write the checkpoint, the class names, and the figures."""
    about: dict[str, Any] = {
        **learner.about(probe),
        "labels": list(data.labels),
        "figures": None if found is None else asdict(found),
        "recipe": recipe.model_dump(mode="json", by_alias=True),
    }
    weights = out / checkpointing.BEST
    activation = "sigmoid" if data.several else "softmax"
    view = embedder.spec.input.model_copy(update={"activation": activation})
    checkpointing.save_weights(weights, learner.checkpoint(probe), view, data.labels, {"probe": about})
    write_report(out, about, data.labels, found)
    return weights
