"""A model's name, or a checkpoint → a classifier that is ready to run: ``vidcls.load``."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vidcls.config import InputSpec, Registry, problems
from vidcls.engines import check_names
from vidcls.engines.embedding import EmbeddingRequest, embedding_engine
from vidcls.engines.select import EngineRequest, engine_for, export_hint
from vidcls.errors import UsageError
from vidcls.inference.auto_views import parse_views
from vidcls.inference.classifier import Classifier
from vidcls.inference.embed import Embedder
from vidcls.inference.settings import Settings, SettingsKeywords
from vidcls.inference.view_calibration import Calibration, stop_rule
from vidcls.video.reader import VideoReader
from vidcls.zoo.facts import CheckpointFacts
from vidcls.zoo.find import CheckpointKeywords, find_model, weights_file
from vidcls.zoo.labels import check_labels, load_labels

if TYPE_CHECKING:
    from typing_extensions import Unpack

VIEWS = (
    "num_views",
    "num_crops",
    "num_frames",
    "stride",
)  # settings that are keys of a model's input as well

__all__ = ["load", "load_embedder", "model_labels", "view_of", "weights_file"]


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    clips: int | None = None,
    registry: str | os.PathLike[str] | Registry | None = None,
    random_weights: bool = False,
    offline: bool = False,
    reader: VideoReader | None = None,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Classifier:
    """Load a model, ready to classify clips.

    Args:
        model: Name in the registry, or a checkpoint: path, URL, or ``hub:owner/name``. The registry's default if None.
        weights: A checkpoint, or a model that `vidcls export` wrote, to use instead of the one that the registry names;
            it decides the architecture's sizes.
        labels: Name of a list in ``vidcls/zoo/labels`` or a file with one label a line.
        clips: How many clips will be scored, as far as that is known; ``engine="auto"`` goes by it.
        registry: A registry, or a file that is laid over the one that ships with vidcls.
        random_weights: Run an architecture untrained; every result says so.
        offline: Never use the network.
        reader: Reads the clips; by default one of its own with ``decoder`` and ``decode_timeout``.
        calibration: What `vidcls calibrate` wrote, for ``num_views="auto"``; None: what it wrote to its usual place.
        **settings: ``device``, ``precision``, ``engine``, ``num_views``, ``num_crops``, ``num_frames``, ``stride``,
            ``fps``, ``average``, ``merge_tokens``, ``decoder`` and ``decode_timeout`` of
            `vidcls.inference.settings.Settings`.

    Raises:
        UsageError: No such model, or options that do not fit it.
        ConfigError: A registry file is wrong.
        WeightsError: There are no weights, or they cannot be fetched.
        CheckpointError: The weights cannot be read or do not fit.
        DeviceError: The device or precision does not exist here.
    """
    wanted = Settings(**settings)
    check_names(wanted.engine, wanted.precision)
    found = find_model(
        model,
        weights=weights,
        registry=registry,
        random_weights=random_weights,
        offline=offline,
        keywords=CheckpointKeywords(wanted.num_frames),
    )
    facts = found.facts
    num_views, auto = parse_views(wanted.num_views)
    views = {name: getattr(wanted, name) for name in VIEWS} | {"num_views": num_views}
    view = view_of(facts, **views)
    request = EngineRequest(wanted.engine, wanted.device, wanted.precision, clips, wanted.merge_tokens)
    ready = engine_for(found, view, request)
    names, notes = model_labels(facts, labels)
    hint = export_hint(found, view, request)
    classifier = Classifier(
        ready,
        facts.spec.model_copy(update={"input": view_of(facts, **views, average=wanted.average)}),
        names or tuple(f"class {index}" for index in range(facts.num_classes)),
        weights=found.source,
        fps=wanted.fps,
        reader=reader if reader is not None else VideoReader(wanted.decoder, wanted.decode_timeout),
        uses_frame_indices=facts.uses_frame_indices,
        warnings=_warnings(random_weights, wanted.merge_tokens),
        notes=(*facts.notes, *notes, *([hint] if hint else [])),
        origin=(found, request),
    )
    if auto:
        classifier.stop_rule = stop_rule(classifier, calibration)
    elif calibration is not None:
        raise UsageError("calibration", 'is for num_views="auto"', "give both, or leave it out")
    return classifier


def _all_keywords() -> inspect.Signature:
    """Return the signature of `load` with its settings one by one, for ``help`` and completion."""
    *named, _ = inspect.signature(load).parameters.values()
    settings = inspect.signature(Settings).parameters.values()
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in settings]
    return inspect.Signature([*named, *keywords], return_annotation=Classifier)


load.__signature__ = _all_keywords()  # type: ignore[attr-defined]


def load_embedder(wanted: EmbeddingRequest, *, reader: VideoReader | None = None, **more: Any) -> Embedder:
    """Load a model, ready to embed clips; keywords and errors are those of `vidcls.load`.

    Any key of the model's input is a keyword too. ``labels`` and ``average`` are taken and have no meaning here.
    """

    def given(*names: str) -> dict[str, Any]:
        return {name: more[name] for name in names if name in more}

    where = given("model", "weights", "registry", "random_weights", "offline")
    found = find_model(**where, keywords=CheckpointKeywords(more.get("num_frames")))
    # ``fps`` is the rate to sample at here, and not that of the training clips.
    view = view_of(found.facts, **given(*InputSpec.model_fields.keys() - {"fps"}))
    if reader is None:
        reader = VideoReader(more.get("decoder", "auto"), more.get("decode_timeout", 60.0))
    runs = Classifier(
        embedding_engine(
            found, view, EngineRequest(**given("engine", "device", "precision", "clips")), wanted
        ),
        found.facts.spec.model_copy(update={"input": view}),
        (),
        weights=found.source,
        fps=more.get("fps", "auto"),
        reader=reader,
        uses_frame_indices=found.facts.uses_frame_indices,
    )
    return Embedder(found, wanted, runs)


def _warnings(random_weights: bool, merge_tokens: float) -> tuple[str, ...]:
    """What every result says."""
    merged = f"token merging: {merge_tokens:g} of the tokens are merged away, the scores are approximate"
    warnings = ["random weights: the labels mean nothing"] if random_weights else []
    return (*warnings, merged) if merge_tokens else tuple(warnings)


def view_of(facts: CheckpointFacts, **changes: Any) -> InputSpec:
    """Lay the changes that are not None over how a model sees a video.

    Raises:
        UsageError: The outcome is not valid; all problems are named.
    """
    view = facts.spec.input
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        view = InputSpec(**{**view.model_dump(), **given}) if given else view
    except ValidationError as error:
        raise UsageError("views", "; ".join(problems(error, InputSpec)), "choose other values") from None
    if facts.tubelet_frames and view.num_frames % facts.tubelet_frames:
        raise UsageError(
            "num_frames",
            f"{view.num_frames} is not a multiple of {facts.tubelet_frames}, the tubelet's frames",
            "choose another number",
        )
    return view


def model_labels(
    facts: CheckpointFacts, given: str | os.PathLike[str] | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Choose the labels: those asked for, then the checkpoint's own, then the entry's if they are as many.

    Returns:
        One label per class, None where there are none; and what the user should know about it.

    Raises:
        ConfigError: They are not as many as the classes.
    """
    spec, num_classes = facts.spec, facts.num_classes
    if given is not None:
        names = load_labels(os.fspath(given))
        check_labels(names, num_classes, os.fspath(given))
        return names, ()
    if facts.labels is not None:
        check_labels(facts.labels, num_classes, spec.name)
        return facts.labels, ()
    if spec.labels is None:
        return None, ()
    names = load_labels(spec.labels)
    if len(names) == num_classes:
        return names, ()
    note = (
        f"the labels of {spec.name} ({spec.labels}) are not as many as the head's {num_classes} classes, "
        "which go by number; pass labels=FILE"
    )
    return None, (note,)
