"""A training recipe as frozen, strictly checked records. Imports no torch.

A recipe says all that a run needs: model, data, initialization, optimizer, schedule, regularizers.
`vidcls.training.recipe_file` reads and writes them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from vidcls.config import InputSpec, Spec
from vidcls.errors import nearest
from vidcls.training.camera_motion.settings import Synthetic
from vidcls.training.schedule import Schedule

NO_VAL = "none"
"""``val`` of a run that does not validate: figures are on training clips, and the last epoch counts as best."""

Figure = Literal["top1", "top5", "mean_class", "loss", "map"]
FIGURES = get_args(Figure)
"""Figures of a validation by which the best epoch may be chosen."""

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
        directions_matter: Left and right carry meaning: never flip, whatever ``flip`` says. Where it is not given,
            class names that speak of left, right or a sense of rotation switch flips off.
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


class Recipe(Spec):
    """A whole training run.

    Attributes:
        description: One line for people.
        model: A registry entry, or the name of an architecture.
        registry: A registry file laid over the one that ships with vidcls.
        config: Keywords laid over the architecture's ``config`` of the registry.
        input: Keys laid over the registry entry's ``input``.
        data: CSV, TSV, Kinetics list, folder of classes, or ``synthetic:camera-motion``.
        val: Validation clips, in the same forms; null holds a fifth of the clips out, ``none`` validates on nothing.
        videos: Folder from which paths in a list count; the list's own folder where it is left out.
        heads: For several labels a clip: name of each → number of classes; the data has one column for each.
        synthetic: How clips are made on the fly.
        multi_label: A clip may have several labels, with ``|`` between them; a column called ``labels`` says so too.
        labels: A list of class names (a name of ``vidcls/labels`` or a file), where the data has numbers or the
            order matters; otherwise the data's words are sorted.
        labels_format: Form of the lists, a key of `vidcls.training.data.forms.FORMS`; None: told by their first lines.
        delimiter: Between the columns of the lists; None: told by their first lines.
        skip_missing: Leave out clips whose file is missing, instead of stopping.
        init: Where the weights start.
        freeze: Names or patterns of parameters that stay as they are; ``backbone`` is all but the head, a number N the
            embeddings and the first N blocks.
        folds: Parts of a probe's cross-validation; None: 5, or 3 of an attentive probe.
        attentive: Put V-JEPA 2's attentive pooler and a head on the model's tokens, and train these alone.
        lora: Rank of adapters that are trained in place of the attention's weights, with the head; all else stays.
        optimizer: The optimizer.
        schedule: The learning rate's course.
        batch_size: Clips for one step of the optimizer, over all devices and accumulated parts.
        micro_batch: Clips that go through one device at once; the rest is accumulated. None: all.
        clips_per_epoch: Length of an epoch where the data has none of its own (synthetic), or to cut it short.
        clip_grad: Largest norm of the gradient.
        class_weights: ``balanced`` weights each class in the loss by the inverse of its number of clips.
        sampler: ``balanced`` draws clips, with repetition, so that each class comes equally often.
        label_smoothing: Part of the target that is spread over all classes.
        mixup: Parameter of the Beta distribution of mixup's share; 0 is off.
        ema: Decay of a running mean of the weights, which is then what is validated and saved; 0 is off.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast).
        plain_attention: Attend by plain matrix products instead of the fused kernel; on CPUs and with fewer than
            about a hundred tokens that is a quarter faster, with many it takes much memory.
        augment: What is done to the pictures.
        seed: Seed of all random draws.
        workers: Processes that read clips; None: one for each spare core, 8 at most.
        frame_cache: Gigabytes of the disk for resized frames, so that epochs after the first do not decode; 0: none.
        token_cache: Gigabytes of the disk for the tokens that an attentive probe learns from.
        save_every: Optimizer steps between two saves of the training state; an epoch's end always saves.
        best: Figure of the validation by which the best epoch is chosen: ``top1``, ``top5``, ``mean_class``, ``loss``,
            or ``map`` of several labels a clip; None: ``map`` where there is one, else ``top1``.
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
    multi_label: bool = False
    labels: str | None = None
    labels_format: str | None = None
    delimiter: str | None = None
    skip_missing: bool = False
    init: Initialize = Field(default_factory=Initialize)
    freeze: tuple[str, ...] = ()
    folds: int | None = Field(None, ge=2, le=100)
    attentive: bool = False
    lora: int | None = Field(None, ge=1, le=4096)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Field(default_factory=Schedule)
    batch_size: int = Field(16, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    clips_per_epoch: int | None = Field(None, ge=1)
    clip_grad: float | None = Field(None, gt=0)
    class_weights: Literal["balanced"] | None = None
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    plain_attention: bool = False
    augment: Augment = Field(default_factory=Augment)
    seed: int = Field(0, ge=0, lt=2**31)
    workers: int | None = Field(None, ge=0, le=256)
    frame_cache: float = Field(0.0, ge=0, le=1e6)
    token_cache: float = Field(20.0, gt=0, le=1e6)
    save_every: int = Field(500, ge=1)
    best: Figure | None = None
    patience: int | None = Field(None, ge=1)

    @field_validator("input")
    @classmethod
    def _known_input_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = InputSpec.model_fields
        wrong = [f"unknown key {key!r}{nearest(key, known)}" for key in value if key not in known]
        if wrong:
            raise ValueError(", ".join(wrong))
        return value

    @model_validator(mode="after")
    def _one_freezes(self) -> Recipe:
        if self.lora is not None and self.freeze:
            raise ValueError("give lora or freeze, not both: lora freezes all but its adapters and the head")
        return self
