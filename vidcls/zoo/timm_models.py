"""``timm:NAME`` in place of a model's name: an entry for any image model of timm, without a registry."""

from __future__ import annotations

from vidcls.config import InputSpec, ModelSpec, WeightsSpec
from vidcls.errors import UsageError, nearest
from vidcls.zoo.entry import name_of

PREFIX = "timm:"
ARCHITECTURE = "timm-frames"


def timm_entry(text: str, view: InputSpec) -> ModelSpec:
    """Make an entry for a model of timm, its weights those of timm's hub repository.

    Args:
        text: ``timm:NAME`` or ``timm:NAME.TAG``, where the tag names one of several published weights.
        view: Which frames to take; how a frame is prepared is the weights' to say.

    Raises:
        UsageError: timm has no such model.
        DependencyError: timm is not installed.
    """
    name, _, tag = text.removeprefix(PREFIX).removeprefix("timm/").partition(".")
    if not tag:
        tag = _default_tag(name)
    return ModelSpec(
        name=f"timm-{name_of(name)}"[:80],
        architecture=ARCHITECTURE,
        config={"model": name},
        input=view,
        weights=WeightsSpec(hub=f"timm/{name}.{tag}") if tag else None,
        description=f"timm's {name} on each frame, logits averaged.",
    )


def _default_tag(name: str) -> str:
    """The tag of the weights that timm takes where none is named; empty where it has none."""
    from vidcls.models.timm_frames import import_timm

    timm = import_timm(f"{PREFIX}{name}")
    if not timm.is_model(name):
        raise UsageError(
            f"{PREFIX}{name}",
            f"timm has no such model{nearest(name, timm.list_models())}",
            "see timm.list_models()",
        )
    settings = timm.get_pretrained_cfg(name)
    return str(settings.tag or "") if settings is not None and settings.hf_hub_id else ""
