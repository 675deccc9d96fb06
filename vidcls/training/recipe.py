"""Training recipes: YAML files read into frozen, strictly checked records. Imports no torch.

A recipe says all that a run needs: model, data, initialization, optimizer, schedule, regularizers. Recipes of
the published systems ship in ``vidcls/training/recipes``; one may name another as its ``base`` and change keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from vidcls.config import InputSpec, Spec, nearest, problems, read_yaml
from vidcls.errors import ConfigError, UsageError

RECIPE = "recipe.yaml"
"""A run's recipe in its folder."""

MAY_CHANGE = ("workers", "save_every", "description")
"""Keys of a recipe that a resumed run may change, since the result does not hang on them."""

RECIPES = Path(__file__).with_name("recipes")
"""Folder of the recipes that ship with vidcls."""

Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Initialize(Spec):
    """Where the weights start.

    Attributes:
        source: (key ``from``) A checkpoint (path, URL, ``hub:ID`` or registry name) of an image ViT or of the
            same architecture; ``none`` starts from random weights; null takes the model's own published ones.
        method: How patch filters of an image ViT become tubelet filters.
        positions: How its position embeddings are fitted.
        temporal: How Model 3's temporal attention starts; see `vidcls.training.init.initialize.initialize`.
        whiten: Replace the tubelet filters by PCA whitening of tubelets from this many training clips; 0 leaves
            them.
        sines: Fill these position embeddings with sines and cosines: name → amplitude.
        zero: Names, prefixes or patterns of parameters that start at zero.
    """

    source: str | None = Field(None, alias="from")
    method: Literal["central", "average", "average_arp"] = "central"
    positions: Literal["auto", "tile", "resize", "resize_tile"] = "auto"
    temporal: Literal["identity", "zero", "copy"] = "identity"
    whiten: int = Field(0, ge=0, le=65536)
    sines: dict[str, Annotated[float, Field(gt=0)]] | None = None
    zero: tuple[str, ...] = ()


class Optimizer(Spec):
    """The optimizer.

    Attributes:
        name: ``sgd`` (with momentum) or ``adamw``.
        lr: Base learning rate, for the whole ``batch_size``.
        momentum: Of SGD.
        nesterov: Nesterov's momentum (SGD).
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: L2 coefficient for SGD, decoupled for AdamW.
        decay_all: Decay biases, norms, tokens and position embeddings too, as the published systems do.
        layer_decay: Factor on the learning rate from each layer to the one before it; 1 is off.
        rates: Factors on the learning rate of parameters by name, prefix or pattern, such as ``head: 10``.
        no_decay: Names, prefixes or patterns of parameters without weight decay, besides those of ``decay_all``.
    """

    name: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    decay_all: bool = True
    layer_decay: float = Field(1.0, gt=0, le=1)
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    no_decay: tuple[str, ...] = ()


class Schedule(Spec):
    """The learning rate over time, as a factor on its base; updated at each step, with fractional epochs.

    Attributes:
        kind: ``cosine`` to zero, ``steps``, or ``constant``; each after the warm-up.
        epochs: Length of the training.
        warmup_epochs: Linear growth from zero.
        steps: Epochs at which the factors begin (``steps``).
        factors: One factor for each of ``steps``.
    """

    kind: Literal["cosine", "steps", "constant"] = "cosine"
    epochs: int = Field(30, ge=1)
    warmup_epochs: float = Field(0.0, ge=0)
    steps: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _steps_with_factors(self) -> Schedule:
        if self.kind == "steps" and (len(self.steps) != len(self.factors) or not self.steps):
            raise ValueError("steps and factors must be lists of the same length")
        if self.kind == "steps" and (self.steps[0] != 0 or list(self.steps) != sorted(self.steps)):
            raise ValueError("steps must begin at epoch 0 and grow")
        return self

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Factor on the base learning rate at ``step`` (0-based count of optimizer steps).

        Warm-up and cosine as scenic's ``compound`` schedule: ``min(1, step / warmup)`` times a half cosine over
        what is left; steps as SlowFast's ``steps_with_relative_lrs``.
        """
        warmup = int(self.warmup_epochs * steps_per_epoch)
        total = self.epochs * steps_per_epoch
        factor = min(1.0, step / warmup) if warmup else 1.0
        if self.kind == "cosine":
            progress = max(0, step - warmup) / max(1, total - warmup)
            return factor * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        if self.kind == "steps":
            epoch = step / steps_per_epoch
            return factor * [f for s, f in zip(self.steps, self.factors, strict=True) if s <= epoch][-1]
        return factor


class RandAugment(Spec):
    """RandAugment as scenic has it: no geometric operation, the same draw for all frames of a clip.

    Attributes:
        layers: Operations applied one after the other.
        magnitude: Their strength; 10 is the full range.
    """

    layers: int = Field(2, ge=1, le=10)
    magnitude: float = Field(15.0, ge=0, le=30)


class Color(Spec):
    """Color jitter, one draw for all frames of a clip; in ranges of gray levels 0..1.

    Attributes:
        brightness: Largest shift of the brightness.
        contrast: Range of the factor.
        saturation: Range of the factor.
        hue: Largest turn of the hue, as a part of the circle.
        probability: Of jittering at all.
        grayscale: Probability of dropping the color.
    """

    brightness: float = Field(32 / 255, ge=0, le=1)
    contrast: Range = (0.6, 1.4)
    saturation: Range = (0.6, 1.4)
    hue: float = Field(0.2, ge=0, le=0.5)
    probability: float = Field(0.8, ge=0, le=1)
    grayscale: float = Field(0.1, ge=0, le=1)


class Augment(Spec):
    """What is done to the pictures of a training clip; each draw holds for all its frames.

    Attributes:
        random_crop: Crop at a random place; otherwise at the center.
        scale_jitter: Range of two independent factors on height and width, after the resize (scenic).
        short_side: Range in pixels of the short side, in the place of the resize (SlowFast).
        inverse_short_side: Draw the short side's inverse evenly, as the Something-Something recipes do.
        flip: Probability of a horizontal flip.
        directions_matter: Left and right carry meaning: never flip, whatever ``flip`` says.
        color: Color jitter.
        randaugment: RandAugment.
    """

    random_crop: bool = True
    scale_jitter: Range | None = None
    short_side: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] | None = None
    inverse_short_side: bool = False
    flip: float = Field(0.5, ge=0, le=1)
    directions_matter: bool = False
    color: Color | None = None
    randaugment: RandAugment | None = None

    @model_validator(mode="after")
    def _one_jitter(self) -> Augment:
        if self.scale_jitter and self.short_side:
            raise ValueError("give scale_jitter or short_side, not both")
        return self


class Synthetic(Spec):
    """Clips that are made on the fly (``data: synthetic:camera-motion``).

    Attributes:
        repeats: Symmetric images (mirrored, turned, backwards) that are used of each clip made.
        images: Folder of pictures to film, besides textures made by rule.
        videos: Folder of footage to film.
        val_clips: Clips of the validation set; they come from a seed of their own.
        plain_steps: Steps over which plain clips, in which nothing but the camera moves, give way to all variety.
        lively_steps: Step from which on half of the clips are lively: hand-held, and crowded; null is never.
        teaching: Weight in the loss of the motion itself, which is known of clips that were made: linear maps from
            the spatial encoder guess it, and are thrown away after the training. 0 is off.
    """

    repeats: int = Field(1, ge=1, le=16)
    images: str | None = None
    videos: str | None = None
    val_clips: int = Field(480, ge=1)
    plain_steps: int = Field(0, ge=0)
    lively_steps: int | None = Field(None, ge=0)
    teaching: float = Field(0.0, ge=0)


class Recipe(Spec):
    """A whole training run.

    Attributes:
        description: One line for people.
        model: A registry entry, or the name of an architecture.
        registry: A registry file laid over the one that ships with vidcls.
        config: Keywords laid over the architecture's ``config`` of the registry.
        input: Keys laid over the registry entry's ``input``.
        data: CSV, TSV, Kinetics list, folder of classes, or ``synthetic:camera-motion``.
        val: The like, for validation; without it the last epoch counts as best.
        videos: Folder from which paths in a list count; the list's own folder where it is left out.
        heads: For several labels a clip: name of each → number of classes; the data has one column for each.
        synthetic: How clips are made on the fly.
        labels: A list of class names (a name of ``vidcls/labels`` or a file), where the data has numbers or the
            order matters; otherwise the data's words are sorted.
        skip_missing: Leave out clips whose file is missing, instead of stopping.
        init: Where the weights start.
        freeze: Names or patterns of parameters that stay as they are; ``backbone`` is all but the head.
        optimizer: The optimizer.
        schedule: The learning rate's course.
        batch_size: Clips for one step of the optimizer, over all devices and accumulated parts.
        micro_batch: Clips that go through one device at once; the rest is accumulated. None: all.
        clips_per_epoch: Length of an epoch where the data has none of its own (synthetic), or to cut it short.
        clip_grad: Largest norm of the gradient.
        label_smoothing: Part of the target that is spread over all classes.
        mixup: Parameter of the Beta distribution of mixup's share; 0 is off.
        ema: Decay of a running mean of the weights, which is then what is validated and saved; 0 is off.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast).
        plain_attention: Attend by plain matrix products instead of the fused kernel; on CPUs and with fewer than
            about a hundred tokens that is a quarter faster, with many it takes much memory.
        augment: What is done to the pictures.
        seed: Of everything random.
        workers: Processes that read clips; None: one for each spare core, 8 at most.
        save_every: Optimizer steps between two saves of the training state; an epoch's end always saves.
        patience: Epochs without a better validation after which training stops; None: never.
    """

    description: str | None = None
    model: str | None = None
    registry: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    input: dict[str, Any] = Field(default_factory=dict)
    data: str | None = None
    val: str | None = None
    videos: str | None = None
    heads: dict[str, Annotated[int, Field(ge=1)]] | None = None
    synthetic: Synthetic = Field(default_factory=Synthetic)
    labels: str | None = None
    skip_missing: bool = False
    init: Initialize = Field(default_factory=Initialize)
    freeze: tuple[str, ...] = ()
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Field(default_factory=Schedule)
    batch_size: int = Field(16, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    clips_per_epoch: int | None = Field(None, ge=1)
    clip_grad: float | None = Field(None, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    plain_attention: bool = False
    augment: Augment = Field(default_factory=Augment)
    seed: int = Field(0, ge=0, lt=2**31)
    workers: int | None = Field(None, ge=0, le=256)
    save_every: int = Field(500, ge=1)
    patience: int | None = Field(None, ge=1)

    @field_validator("input")
    @classmethod
    def _known_input_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = InputSpec.model_fields
        wrong = [f"unknown key {key!r}{nearest(key, known)}" for key in value if key not in known]
        if wrong:
            raise ValueError(", ".join(wrong))
        return value


def recipe_names() -> list[str]:
    """Names of the recipes that ship with vidcls."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe, given by its name or its path.

    Raises:
        ConfigError: There is neither; the message names the nearest one.
    """
    builtin = RECIPES / f"{name}.yaml"
    if "/" not in name and "\\" not in name and builtin.is_file():
        return builtin
    if Path(name).is_file():
        return Path(name)
    known = recipe_names()
    hint = nearest(name, known)
    raise ConfigError(name, f"no such recipe{hint}", f"give a YAML file or one of {', '.join(known)}")


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``: mappings key by key, everything else whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read_recipe(name: str | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and lay ``overrides`` (from flags, nested like the YAML) over it.

    Args:
        name: A shipped recipe's name, a YAML file, or None for the defaults alone.
        overrides: Keys that win over the file.

    Raises:
        ConfigError: With all problems of the recipe together, each with the nearest known key.
    """
    data = _read_with_base(name, ()) if name is not None else {}
    try:
        return Recipe.model_validate(merge(data, overrides or {}))
    except ValidationError as error:
        found = problems(error, Recipe)
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise ConfigError(str(name or "recipe"), f"{count}:\n  " + "\n  ".join(found)) from None


def _read_with_base(name: str, above: tuple[Path, ...]) -> dict[str, Any]:
    """Read one file and, below it, the one it names as its base."""
    path = recipe_path(name).resolve()
    if path in above:
        raise ConfigError(str(path), "is its own base", "give it another base")
    data = read_yaml(path)
    base = data.pop("base", None)
    if base is None:
        return data
    beside = path.parent / str(base)
    below = _read_with_base(str(beside) if beside.is_file() else str(base), (*above, path))
    return merge(below, data)


def recipe_text(recipe: Recipe) -> str:
    """A recipe in full as YAML, so that a run folder says how it was made."""
    data = recipe.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Let a recipe's paths hold from any folder."""
    changes: dict[str, Any] = {}
    for key in ("data", "val", "videos", "registry", "labels"):
        value = getattr(recipe, key)
        if value is not None and not value.startswith("synthetic:") and Path(value).exists():
            changes[key] = str(Path(value).absolute())
    source = recipe.init.source
    if source is not None and Path(source).exists():
        changes["init"] = recipe.init.model_copy(update={"source": str(Path(source).absolute())})
    return recipe.model_copy(update=changes)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``KEY.KEY=VALUE`` strings as nested mappings; the value is YAML.

    Raises:
        UsageError: One has no ``=``, or its value is no YAML.
    """
    nested: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"--set {setting}", "is not KEY=VALUE", "write, say, --set schedule.epochs=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {setting}", f"its value is not YAML ({error})", "quote it") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given: None, and mappings that hold nothing else."""
    kept = {key: without_empty(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def plan_run(
    out: Path, config: str | None, flags: dict[str, Any], settings: Sequence[str], resume: bool
) -> tuple[Recipe, bool]:
    """Settle a run's recipe: from file and flags, or from the run that is resumed.

    Args:
        out: Folder of the run.
        config: Recipe file or name.
        flags: Nested like the recipe; None is not given.
        settings: ``KEY=VALUE`` strings, which win over all.
        resume: Whether to go on with a run.

    Returns:
        The recipe, and whether there is a run to go on with: one that was killed before it began starts anew.

    Raises:
        UsageError: A resumed run was given other settings than it was begun with.
        ConfigError: The recipe is wrong.
    """
    given = merge(without_empty(flags), parse_settings(settings))
    stored = out / RECIPE
    if not resume or not stored.is_file():
        return with_absolute_paths(read_recipe(config, given)), False
    begun = read_recipe(str(stored))
    if config is None and not given:
        return begun, True
    base = merge(begun.model_dump(mode="json", by_alias=True), _read_with_base(config, ()) if config else {})
    wanted = with_absolute_paths(Recipe.model_validate(merge(base, given)))
    changed = [
        key
        for key in Recipe.model_fields
        if key not in MAY_CHANGE and getattr(wanted, key) != getattr(begun, key)
    ]
    if changed:
        raise UsageError(
            str(out),
            f"the run was begun with another {', '.join(changed)}",
            "leave the change out, or start a new run with --out",
        )
    return wanted, True
