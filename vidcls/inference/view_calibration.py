"""The file that `vidcls calibrate` writes for ``num_views="auto"``, and where it is looked for. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidcls.config import InputSpec, problems
from vidcls.errors import ConfigError, OutputError, UsageError, counted
from vidcls.inference.auto_views import StopRule
from vidcls.paths import cache_dir, write_text
from vidcls.zoo.weights import BUNDLED, checksum

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier

MAX_BYTES = 1 << 16
"""Of a file."""
PROTOCOL = ("architecture", "weights_sha256", *InputSpec.model_fields, "fps_option", "merge_tokens")
"""What a calibration is for: the checkpoint, and how it sees a clip; engines and precisions answer nearly alike."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0, le=1e6)]


class Calibration(BaseModel):
    """What `vidcls calibrate` found out.

    Attributes:
        version: Of this form.
        model: Name of the model, for people.
        protocol: See `PROTOCOL`.
        threshold: See `vidcls.inference.auto_views.StopRule`, as for the next two.
        spread: Likewise.
        bound: Likewise; None where unknown.
        clips: How many clips it was made from.
        keep: Share of the clips whose best label had to stay that of all views.
        kept: Share whose best label did.
        kept_at_least: Lower end of the one-sided 95 % confidence interval of that share (Clopper and Pearson 1934).
        mean_views: Views that were needed on average.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    version: Literal[1] = 1
    model: Annotated[str, Field(max_length=1000)]
    protocol: dict[str, Any]
    threshold: Annotated[float, Field(gt=0, le=1e6)]
    spread: Positive
    bound: Positive | None
    clips: Annotated[int, Field(ge=1)]
    keep: Share
    kept: Share
    kept_at_least: Share
    mean_views: Annotated[float, Field(ge=1, le=1e6)]

    @property
    def rule(self) -> StopRule:
        """When to stop."""
        return StopRule(self.threshold, self.spread, math.inf if self.bound is None else self.bound)


def protocol_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a run's settings that a calibration is for."""
    return {name: settings.get(name) for name in PROTOCOL}


def settings_of(classifier: Classifier) -> dict[str, Any]:
    """Return what a classifier's scores depend on besides engine, labels and clip, ready for JSON."""
    path = None if classifier.origin is None else classifier.origin[0].path
    return {
        "architecture": classifier.spec.architecture,
        "weights_sha256": "random" if path is None else checksum(path),
        **classifier.spec.input.model_dump(mode="json"),
        "fps_option": classifier.fps,
        **({"merge_tokens": classifier.merge_tokens} if classifier.merge_tokens else {}),
    }


def calibration_of(settings: Mapping[str, Any], rule: StopRule, **found: Any) -> Calibration:
    """Return a calibration for a run's settings; ``found`` is what it says of the clips that it was made from."""
    bound = rule.bound if math.isfinite(rule.bound) else None
    return Calibration(
        model=settings["model"],
        protocol=protocol_of(settings),
        threshold=rule.threshold,
        spread=rule.spread,
        bound=bound,
        **found,
    )


def usual_place(model: str, protocol: Mapping[str, Any]) -> Path:
    """Return where the calibration of a checkpoint and protocol lies unless another place is named."""
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-.")[:60]
    return cache_dir() / "views" / f"{name}-{digest[:16]}.json"


def write_calibration(found: Calibration, path: Path) -> None:
    """Write a calibration.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, found.model_dump_json(indent=1) + "\n")
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise OutputError(str(path), problem, "name another file with -o") from None


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read a calibration, which may come from a stranger.

    Raises:
        ConfigError: It is not one.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            name, f"cannot be read ({error.strerror or error})", "write one by `vidcls calibrate`"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            name, f"is larger than {MAX_BYTES >> 10} KiB", "give a file that `vidcls calibrate` wrote"
        )
    try:
        return Calibration.model_validate_json(data)
    except (ValidationError, RecursionError) as error:
        said = (
            "; ".join(problems(error, Calibration))
            if isinstance(error, ValidationError)
            else "nested too deeply"
        )
        raise ConfigError(name, said, "give a file that `vidcls calibrate` wrote") from None


def _read_kept(path: Path) -> Calibration:
    try:
        return read_calibration(path)
    except ConfigError as error:
        remedy = "delete it, or run `vidcls calibrate --overwrite` again"
        raise ConfigError(error.subject, error.problem, remedy) from None


def stop_rule(classifier: Classifier, given: Calibration | str | os.PathLike[str] | None) -> StopRule:
    """Return when a classifier may stop looking at a clip.

    Args:
        classifier: Knows the most views of a clip.
        given: A calibration or its file; None: the one in its usual place, or the one that comes with the model.

    Raises:
        UsageError: There is none, it is for another checkpoint or protocol, or early stopping makes no sense here.
        ConfigError: The file is not a calibration.
    """
    view, name = classifier.spec.input, classifier.spec.name
    settings = settings_of(classifier)
    check_views(settings)
    protocol = protocol_of(settings)
    if given is not None:
        found = given if isinstance(given, Calibration) else read_calibration(given)
        _check_protocol(found, protocol)
        return found.rule
    usual = usual_place(name, protocol)
    other: dict[str, Any] = {}
    for path in (usual, BUNDLED / f"{name}.views.json"):
        if path.is_file():
            found = _read_kept(path)
            if found.protocol == protocol:
                return found.rule
            other = found.protocol
    views = f"{counted(view.num_views, 'view')} x {counted(view.num_crops, 'crop')}"
    differs = _differences(other, protocol) if other else ""
    raise UsageError(
        "num_views=auto",
        f"is not calibrated for {name} with {views}"
        + (f"; what there is, was made for {differs}" if differs else ""),
        "run `vidcls calibrate CLIPS` with the same model and options once, or give a number of views",
    )


def check_views(settings: Mapping[str, Any]) -> None:
    """Refuse models for which stopping early makes no sense.

    Raises:
        UsageError: The model has several labels for a clip, or sees one view of it.
    """
    if settings["activation"] == "sigmoid":
        problem = "stops when the best label is clear, but this model gives each clip several labels"
        raise UsageError("num_views=auto", problem, "give a number of views")
    if settings["num_views"] * settings["num_crops"] < 2:
        problem = "has no choice: this model sees 1 view of a clip"
        raise UsageError("num_views=auto", problem, "allow more, such as num_views=auto:4")


def _differences(found: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """Say in what a protocol differs, up to three points."""
    return "; ".join(
        [
            f"{key} {found.get(key)!r:.80} instead of {value!r:.80}"
            for key, value in protocol.items()
            if found.get(key) != value
        ][:3]
    )


def _check_protocol(found: Calibration, protocol: Mapping[str, Any]) -> None:
    different = _differences(found.protocol, protocol)
    if different:
        raise UsageError(
            "calibration",
            f"was made for {different}",
            "run `vidcls calibrate` with this model and these options",
        )
