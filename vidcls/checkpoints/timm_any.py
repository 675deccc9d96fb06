"""Any image model of timm: a repository's folder, or a bare state dict with the model's name.

What is a plain ViT is read by `vidcls.checkpoints.timm_vit` into a model of our own; timm builds all others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, check_state
from vidcls.checkpoints.class_names import class_names
from vidcls.checkpoints.timm_config import input_fields, model_args, pretrained_cfg
from vidcls.checkpoints.unwrap import views
from vidcls.models.sizes import pair
from vidcls.models.timm_frames import classifier_name, create, import_timm
from vidcls.models.timm_frames_config import NOT_ARGUMENTS

NAME = "timm"
ARCHITECTURE = "timm-frames"
MAX_GROWTH = 1.5  # parameters of the model that a configuration describes ÷ numbers in the file


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration names a model of timm."""
    return raw.kind == "timm" and isinstance(raw.meta["config"].get("architecture"), str)


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read an image model for `vidcls.models.timm_frames.TimmFrames`, with its labels and its preprocessing.

    Args:
        raw: The folder; or a file of weights, whose model ``config`` names.
        architecture: ``timm-frames`` or None.
        config: ``model`` for a file without configuration; ``image_size`` for another size, which timm's own loader
            fits the weights to; any other keyword of the architecture.

    Raises:
        CheckpointError: The model has no classifier, or does not fit its configuration.
        ConfigError: timm has no such model.
        DependencyError: timm is not installed.
    """
    raw.expect(architecture, ARCHITECTURE, "a model of timm")
    timm = import_timm(str(raw.path))
    if raw.kind != "timm":
        raw = _with_registered(raw, timm, config.get("model"))
    settings = raw.meta["config"]
    seen = input_fields(raw)
    arguments = {key: value for key, value in model_args(raw).items() if key not in NOT_ARGUMENTS}
    size = pair(config.get("image_size", seen["image_size"]))
    classes = _num_classes(raw)
    state, name = _fitted(raw, timm, settings["architecture"], classes, size, arguments)
    found = {
        **config,
        "model": settings["architecture"],
        "image_size": size,
        "num_classes": classes,
        "model_args": arguments,
    }
    if size != seen["image_size"]:
        seen |= {"image_size": size, "resize": _scaled(seen["resize"], seen["image_size"], size)}
    labels, notes = class_names(raw, classes)
    return Checkpoint(
        NAME, ARCHITECTURE, found, our_names(state, name), labels=labels, input=seen, notes=notes
    )


def our_names(state: dict[str, Tensor], classifier: str | None) -> dict[str, Tensor]:
    """Put timm's names below ``backbone``, but the classifier's, which is our ``head``."""
    prefix = f"{classifier}."
    return {
        f"head.{name.removeprefix(prefix)}"
        if classifier and name.startswith(prefix)
        else f"backbone.{name}": t
        for name, t in state.items()
    }


def _with_registered(raw: Raw, timm: Any, name: Any) -> Raw:
    """A bare file with what timm knows of the model that is said to be in it."""
    if not isinstance(name, str):
        raise raw.error(
            "does not say which model of timm it is", "give model=NAME, or timm:NAME with the file"
        )
    plain = name.partition(".")[0]
    known = timm.get_pretrained_cfg(name) if timm.is_model(plain) else None
    picture = (
        {} if known is None else {k: list(v) if isinstance(v, tuple) else v for k, v in vars(known).items()}
    )
    size = (224, 224) if known is None else tuple(known.input_size[1:])
    with torch.device("meta"):
        own = set(create(plain, 0, size).state_dict())
    fitting = _unwrapped(raw, own)
    head = picture.get("classifier")
    weight = fitting.tensors.get(f"{head}.weight") if isinstance(head, str) else None
    if weight is not None and weight.ndim == 2:
        picture["num_classes"] = weight.shape[0]
    config = {"architecture": plain, "num_classes": picture.get("num_classes"), "pretrained_cfg": picture}
    return replace(fitting, kind="timm", meta={"config": config, "preprocessor": {}})


def _unwrapped(raw: Raw, own: set[str]) -> Raw:
    """The weights without what a training script puts before the model's ``own`` names."""
    return max(views(raw), key=lambda view: len(own & view.tensors.keys()))


def _num_classes(raw: Raw) -> int:
    """Length of the logits; the entry at the top wins over the one about pictures."""
    classes = raw.meta["config"].get("num_classes", pretrained_cfg(raw).get("num_classes"))
    if type(classes) is not int or classes < 1:
        raise raw.error(
            f"has no classifier (num_classes is {classes!r})", "choose a model that was trained to classify"
        )
    return classes


def _fitted(
    raw: Raw, timm: Any, name: str, classes: int, size: tuple[int, int], arguments: dict[str, Any]
) -> tuple[dict[str, Tensor], str | None]:
    """The weights under the names and shapes of timm's present model, and its classifier's name.

    Where they differ, timm's own loader renames and resizes what it knows of.
    """
    with torch.device("meta"):
        model = create(name, classes, size, 3, arguments)
    own = model.state_dict()
    raw = _unwrapped(raw, set(own))
    tensors = {
        key: tensor for key, tensor in raw.tensors.items() if key in own or not key.endswith("_tracked")
    }
    for key, tensor in own.items():  # BatchNorm's counters, which nothing reads in evaluation
        if key.endswith("num_batches_tracked"):
            tensors.setdefault(key, torch.zeros(tensor.shape, dtype=tensor.dtype))
    classifier = classifier_name(model)
    if own.keys() == tensors.keys() and all(own[key].shape == t.shape for key, t in tensors.items()):
        return tensors, classifier
    described = sum(tensor.numel() for tensor in own.values())
    if described > MAX_GROWTH * sum(tensor.numel() for tensor in tensors.values()):
        check_state(model, tensors, raw.path, f"timm's {name}")
    overlay = {
        "state_dict": dict(tensors),
        "num_classes": classes,
        "classifier": classifier,
        "url": None,
        "hf_hub_id": None,
        "file": None,
        "source": None,
        "custom_load": False,
    }
    try:
        loaded = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=classes,
            **{**arguments, **({"img_size": size} if "img_size" in arguments else {})},
        )
    except (RuntimeError, KeyError, ValueError, TypeError, AssertionError, IndexError, AttributeError):
        check_state(model, tensors, raw.path, f"timm's {name}")
    return loaded.state_dict(), classifier


def _scaled(resize: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """The size before the crop, in proportion to the crop."""
    if isinstance(resize, tuple):
        return tuple(
            round(side * after / before) for side, before, after in zip(resize, old, new, strict=True)
        )
    return round(resize * min(new) / min(old))
