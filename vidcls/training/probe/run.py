"""``vidcls train --probe``: embed each clip once, fit a linear classifier, say how good it is, write a checkpoint."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.embedding import EmbeddingRequest
from vidcls.errors import UsageError, printable
from vidcls.inference.embed import Embedder
from vidcls.inference.feature_store import EmbeddingCache
from vidcls.inference.load import load_embedder
from vidcls.output.embedding import unpack
from vidcls.output.progress import ProgressBar
from vidcls.paths import cache_dir
from vidcls.score.pipeline import Pipeline
from vidcls.score.setup import Setup
from vidcls.training import checkpointing, logs
from vidcls.training.data.augment import without_wrong_flips
from vidcls.training.data.listing import Sample
from vidcls.training.data.sets import Data, load_data
from vidcls.training.groups import number_groups
from vidcls.training.probe import figures
from vidcls.training.probe.fit import (
    FOLDS,
    Embedded,
    LinearProbe,
    cross_validated,
    fit_best,
    learning_curve,
    logistic_regression,
)
from vidcls.training.recipe import Recipe
from vidcls.video.sources import Source

REPORT = "probe.json"
CONFUSION = "confusion.csv"


@dataclass(frozen=True)
class ProbeResult:
    """The outcome of a probe.

    Attributes:
        weights: The checkpoint.
        probe: The classifier in it.
        figures: How good it is on clips that it had not seen; None where there were too few to tell.
        bad_clips: How many clips could not be read.
    """

    weights: Path
    probe: LinearProbe
    figures: figures.Figures | None
    bad_clips: int


def train_probe(recipe: Recipe, out: Path, *, device: str = "auto", quiet: bool = False) -> ProbeResult:
    """Fit a linear classifier on the embeddings of a frozen model.

    Args:
        recipe: Its ``model`` or ``init.from``, data, ``input``, ``class_weights`` and ``seed`` count; ``augment.flip``,
            where given, adds mirrored views.
        out: The run's folder; what a probe wrote there before is replaced.
        device: Where the model runs.
        quiet: Print nothing but warnings.

    Raises:
        UsageError: The data has mistakes, or fewer than two classes.
        DependencyError: scikit-learn is not installed.
        OutputError: The run's files cannot be written.
    """
    logistic_regression()
    if (out / checkpointing.STATE).exists():
        raise UsageError(str(out), "holds a training run", "name another output=FOLDER")
    checkpointing.make_folder(out)
    say = (lambda text: None) if quiet else logs.message
    started = time.perf_counter()
    embedder = _embedder(recipe, device)
    data = check_data(load_data(recipe, embedder.spec, hold_out=False), recipe)
    for note in data.notes:
        say(note)
    mirrors = _mirrors(recipe, data.labels, say)
    bad = logs.BadClips(out / logs.BAD_CLIPS, fresh=True)
    if mirrors:
        embedder = embedder.mirroring()
    cache = EmbeddingCache(cache_dir() / "embeddings", {**embedder.settings(), "mirrored": mirrors})
    work = _Embedding(embedder, cache, bad, quiet)
    train = work.embed(*_of(data.train), "training clips")
    val = None if data.val is None else work.embed(*_of(data.val), "validation clips")
    say(
        f"embedded {work.made} clips in {time.perf_counter() - started:.1f} s, {work.found} were in the cache"
    )
    labels, seed, balanced = data.labels, recipe.seed, recipe.class_weights is not None
    probe = fit_best(train, len(labels), seed, balanced)
    found = _measure(probe, train, val, len(labels), seed, balanced)
    for line in (
        figures.lines(found, labels) if found else ["too few clips of a class to tell how good it is"]
    ):
        say(line)
    weights = _write(out, embedder, probe, labels, recipe, found)
    say(f"finished in {time.perf_counter() - started:.1f} s")
    return ProbeResult(weights, probe, found, len(bad))


def check_probe(recipe: Recipe, *, device: str = "auto") -> Data:
    """Check what a probe needs, without embedding anything; arguments and errors as for `train_probe`.

    Returns:
        The clips.
    """
    logistic_regression()
    embedder = _embedder(recipe, device)
    embedder.close()
    return check_data(load_data(recipe, embedder.spec, hold_out=False), recipe)


def _embedder(recipe: Recipe, device: str) -> Embedder:
    # Logits are averaged over views: a linear classifier of mean embeddings is that, and no softmax in between.
    view = {**recipe.input, "average": "logits"}
    return load_embedder(
        EmbeddingRequest(per="view"),
        model=recipe.model,
        weights=recipe.init.source,
        registry=recipe.registry,
        device=device,
        engine="eager",
        precision="fp32",
        **view,
    )


def check_data(data: Data, recipe: Recipe) -> Data:
    """The clips of a probe.

    Raises:
        UsageError: They have several labels each, or are made on the fly; or the model is adapted too.
    """
    if recipe.lora is not None:
        raise UsageError("probe", "freezes the model that lora adapts", "give one of them")
    if recipe.heads or data.several or data.train is None:
        raise UsageError("probe", "needs clips with one label each", "leave heads and synthetic data out")
    return data


def _mirrors(recipe: Recipe, labels: Sequence[str], say: Callable[[str], None]) -> bool:
    """Whether mirrored views are learned from: only where the recipe asks for flips, since left may mean left."""
    if "flip" not in recipe.augment.model_fields_set:
        return False
    augment, note = without_wrong_flips(recipe.augment, labels)
    if note is not None:
        say(note)
    return augment.flip > 0 and not augment.directions_matter


def _of(part: tuple[list[Sample], list[tuple[int, ...]]] | None) -> tuple[list[Sample], list[int]]:
    assert part is not None
    return part[0], [ids[0] for ids in part[1]]


class _Embedding:
    """Embeds sets of clips, by the cache where it has them; a clip that cannot be read is left out and reported."""

    def __init__(self, embedder: Embedder, cache: EmbeddingCache, bad: logs.BadClips, quiet: bool) -> None:
        self.embedder, self.cache, self.bad = embedder, cache, bad
        self.quiet, self.mirrors = quiet, embedder.request.mirrored
        self.made = self.found = 0

    def embed(self, samples: Sequence[Sample], ids: Sequence[int], what: str) -> Embedded:
        """Embeddings of all clips that can be read.

        Raises:
            UsageError: None can.
        """
        found: dict[str, NDArray[np.float32]] = {}
        paths = list(dict.fromkeys(sample.path for sample in samples))
        with ProgressBar(f"embedding {what}", len(paths), unit="clips", shown=not self.quiet) as bar:
            for number, (path, vectors) in enumerate(self._vectors(paths), 1):
                if vectors is not None:
                    found[path] = vectors
                bar.update(number)
        kept = [index for index, sample in enumerate(samples) if sample.path in found]
        if not kept:
            raise UsageError("data", f"none of the {len(samples)} {what} can be read", "check the files")
        views = np.stack([found[samples[index].path] for index in kept])
        own = views.shape[1] // 2 if self.mirrors else views.shape[1]
        paths = [samples[index].path for index in kept]
        groups = number_groups(paths, [samples[index].group for index in kept])
        return Embedded(views[:, :own], views[:, own:], np.array(ids)[kept], groups)

    def _vectors(self, paths: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
        """Yield each clip and the vectors of its views, mirrored ones behind the others; None for one that failed."""
        missing = []
        for path in paths:
            stored = self.cache.get(path)
            if stored is None:
                missing.append(Source(path, path))
                continue
            self.found += 1
            yield path, stored
        if not missing:
            return
        pipeline = Pipeline(self.embedder, Setup(), {})
        for result in pipeline.run(missing):
            if result is None:
                continue
            if result.kind is not None:
                problem = str(result.row["error"]).removeprefix(f"{printable(result.item.path)}: ")
                self.bad.add(((result.item.path, f"{problem} ({result.kind})"),))
                yield result.item.path, None
                continue
            vectors = unpack(result.row["vector"])
            self.cache.put(result.item.path, vectors)
            self.made += 1
            yield result.item.path, vectors


def _measure(
    probe: LinearProbe, train: Embedded, val: Embedded | None, num_classes: int, seed: int, balanced: bool
) -> figures.Figures | None:
    """Figures on the validation set, or else by cross-validation."""
    curve = list(learning_curve(train, num_classes, probe.strength, seed, balanced))
    if val is not None:
        return figures.measure("validation set", probe.logits(val.rows), val.ids, val.groups, curve)
    crossed = cross_validated(train, num_classes, seed, balanced)
    if crossed is None:
        return None
    logits, strengths = crossed
    method = f"{len(strengths)}-fold cross-validation"
    return figures.measure(method, logits, train.ids, train.groups, curve)


def _write(
    out: Path,
    embedder: Embedder,
    probe: LinearProbe,
    labels: Sequence[str],
    recipe: Recipe,
    found: figures.Figures | None,
) -> Path:
    """Write the checkpoint, the class names, the figures and the confusion matrix."""
    about: dict[str, Any] = {
        "strength": probe.strength,
        "folds": FOLDS,
        "labels": list(labels),
        "figures": None if found is None else found.as_dict(),
        "recipe": recipe.model_dump(mode="json", by_alias=True),
    }
    weights = out / checkpointing.BEST
    model = embedder.model_with(probe.weight, probe.bias)
    view = embedder.spec.input.model_copy(update={"activation": "softmax"})
    checkpointing.save_weights(weights, model, view, labels, {"probe": about})
    write_report(out, about, labels, found)
    return weights


def write_report(
    out: Path, about: dict[str, Any], labels: Sequence[str], found: figures.Figures | None
) -> None:
    """Write the class names, what is known about a probe, and its confusion matrix."""
    checkpointing.write_text(out / checkpointing.LABELS, "".join(f"{name}\n" for name in labels))
    checkpointing.write_text(out / REPORT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    if found is not None:
        _write_confusion(out / CONFUSION, found, labels)


def _write_confusion(path: Path, found: figures.Figures, labels: Sequence[str]) -> None:
    with checkpointing.replaced(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("true label", *labels))
        writer.writerows((name, *row) for name, row in zip(labels, found.confusion, strict=True))
