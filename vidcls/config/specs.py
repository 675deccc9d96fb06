"""The records that models.yaml is read into: frozen, checked, and an unknown key is an error. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vidcls.errors import nearest
from vidcls.models import CONFIGS, config_keys

SHIPPED = "shipped"
"""Context in which entries of the registry that ships are validated."""

MAX_SHOWN = 10  # problems of one kind in an error


def pair(value: object) -> object:
    """Let one number stand for (h, w); anything else is left for the validator to judge."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Pair = Annotated[
    tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]], BeforeValidator(pair)
]
Triple = tuple[float, float, float]


class Spec(BaseModel):
    """Base of the records: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(Spec):
    """How one checkpoint sees a video: which frames, which crops, and what becomes of a pixel.

    Attributes:
        num_frames: Frames of one clip.
        stride: Distance of neighboring frames, in frames at ``fps``.
        fps: Frame rate of the training clips in 1/s; None counts frames as the file has them.
        num_views: Clips in time.
        num_crops: Crops in space of each clip, 1 (center) or 3 (along the longer side).
        clips_per_view: Clips that one view consists of, shown to the model together, with ``sampling`` ``vjepa2``;
            ``num_frames`` counts the frames of all.
        sampling: Rule by which clips are placed in time; see ``vidcls.views.transform``.
        image_size: Height and width of a crop in pixels.
        resize: Length of one side in pixels before the crop, or exact (h, w), or None.
        resize_side: Which side ``resize`` is: ``short``, or ``long`` (timm's ``border``), to be padded. With (h, w),
            ``cover`` and ``fit`` keep the shape, so that the picture covers that size or fits into it.
        resize_rule: ``truncate`` (bilinear without antialias, cut to whole gray levels: scenic), ``round``
            (antialiased, rounded: PIL, HF), ``torchvision`` (the same with coarser weights: HF since v5),
            ``float`` (bilinear without antialias, on floats: SlowFast), ``opencv`` (bilinear without antialias
            in whole numbers: VideoMAE), or ``swscale`` (antialiased, by FFmpeg as it decodes: the cheapest).
        interpolation: Kernel of the resize.
        center_crop: Rounding of the single center crop's offset; ``round`` goes to the even neighbor.
        three_crops: Where the middle one of three crops starts, and with ``steps`` the last: see
            `vidcls.views.transform.crop_offsets`.
        fill: Color of padding where a picture is smaller than the crop: ``black``, or ``mean`` as ``mean`` says.
        scale: A pixel x in 0..255 becomes ``x * scale + offset``.
        offset: See ``scale``.
        mean: Taken from each channel after ``scale`` and ``offset``; None takes nothing.
        std: Divides each channel after ``mean``.
        channels: Order of the color channels.
        average: What is averaged over the views, ``logits`` or ``probs`` (their softmax).
        activation: What makes scores of logits: ``softmax`` where one class is right, ``sigmoid`` where several may be.
    """

    num_frames: int = Field(32, ge=1, le=65536)
    stride: int = Field(2, ge=1, le=4096)
    fps: float | None = Field(None, gt=0, le=1000)
    num_views: int = Field(4, ge=1, le=1024)
    num_crops: Literal[1, 3] = 1
    clips_per_view: int = Field(1, ge=1, le=64)
    sampling: Literal[
        "vivit", "timesformer", "vtn", "segments", "uniform", "videomae", "videomae-sparse", "vjepa2"
    ] = "vivit"
    image_size: Pair = (224, 224)
    resize: Annotated[int, Field(ge=1, le=8192)] | Pair | None = 256
    resize_side: Literal["short", "long", "cover", "fit"] = "short"
    resize_rule: Literal["truncate", "round", "torchvision", "float", "opencv", "swscale"] = "truncate"
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bilinear"
    center_crop: Literal["floor", "ceil", "round"] = "floor"
    three_crops: Literal["ceil", "floor", "steps"] = "ceil"
    fill: Literal["black", "mean"] = "black"
    scale: float = 2 / 255
    offset: float = -1.0
    mean: Triple | None = None
    std: Triple | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    average: Literal["logits", "probs"] = "logits"
    activation: Literal["softmax", "sigmoid"] = "softmax"

    @model_validator(mode="after")
    def _mean_with_std(self) -> InputSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together; give both or neither")
        if self.std is not None and min(abs(s) for s in self.std) < 1e-8:
            raise ValueError("std must not be zero")
        return self

    @model_validator(mode="after")
    def _whole_clips(self) -> InputSpec:
        if self.clips_per_view > 1 and (self.sampling != "vjepa2" or self.num_frames % self.clips_per_view):
            raise ValueError(
                f"clips_per_view needs sampling vjepa2 and num_frames that are a multiple of it, not {self.num_frames}"
            )
        return self


WEIGHT_SOURCES = ("url", "hub", "path", "bundled", "package")


class WeightsSpec(Spec):
    """Where a model's weights are: exactly one of ``url``, ``hub``, ``path``, ``bundled`` and ``package``.

    Attributes:
        url: An http(s) address of one file.
        hub: A Hugging Face repository, ``owner/name`` or ``owner/name@revision``.
        path: A local file or folder; in a registry file it counts from that file's folder.
        bundled: Name of a file in ``vidcls/zoo/bundled``.
        package: Name of an installed Python distribution that has them; it is never imported. Needs ``file`` and
            ``sha256``.
        file: Path of the file as the distribution's RECORD names it.
        sha256: Checksum in hexadecimal digits, where it is known.
        format: Name of the checkpoint format, where its content leaves a doubt.
    """

    url: str | None = Field(None, pattern=r"^https?://\S+$", max_length=2048)
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$", max_length=256)
    path: str | None = None
    bundled: str | None = Field(None, pattern=r"^[\w-]+(\.[\w-]+)+$")
    package: str | None = Field(None, pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=128)
    file: str | None = Field(None, pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$", max_length=512)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    format: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> WeightsSpec:
        given = [key for key in WEIGHT_SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of url, hub, path, bundled and package")
        if self.package is not None and (self.file is None or self.sha256 is None):
            raise ValueError("package needs file and sha256 beside it")
        if self.package is None and self.file is not None:
            raise ValueError("file goes with package only")
        return self


class Published(Spec):
    """Figures that the authors published; ours stand beside them in ``vidcls models``.

    Attributes:
        top1: Top-1 accuracy in per cent on ``ModelSpec.dataset``.
        top5: Top-5 accuracy in per cent.
        views: Temporal × spatial views at which they were measured, such as ``4x3``.
        params: Number of parameters.
        gmacs: 10⁹ multiply-adds for one view.
        source: Paper, table or file that says so.
        differs: Why our own count is more than 1 % from ``params`` or ``gmacs``; None where it is not.
    """

    top1: float | None = Field(None, ge=0, le=100)
    top5: float | None = Field(None, ge=0, le=100)
    views: str | None = None
    params: int | None = Field(None, ge=0)
    gmacs: float | None = Field(None, ge=0)
    source: str | None = None
    differs: str | None = None


class Figures(Spec):
    """What we count ourselves on the model as built from its entry, beside the authors' figures.

    Attributes:
        params: Number of parameters.
        gmacs: 10⁹ multiply-adds for one view.
    """

    params: int = Field(ge=0)
    gmacs: float = Field(ge=0)


class ModelSpec(Spec):
    """One entry of models.yaml.

    Attributes:
        name: The entry's key.
        architecture: A key of `vidcls.models.ARCHITECTURES`.
        config: Keywords of the architecture.
        input: How this model sees a video.
        dataset: What it was trained on.
        labels: Name of a list in ``vidcls/labels``, or a file.
        weights: Where its weights are; None for an architecture without any.
        license: License of the weights.
        published: Figures of the authors.
        ours: Our own count; written by ``benchmarks/registry_figures.py`` and held true by a test.
        description: One or two lines for people.
        hint: One line printed after a prediction.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)
    architecture: str
    config: dict[str, Any] = Field(default_factory=dict)
    input: InputSpec = Field(default_factory=InputSpec)
    dataset: str | None = None
    labels: str | None = None
    weights: WeightsSpec | None = None
    license: str | None = None
    published: Published = Field(default_factory=Published)
    ours: Figures | None = None
    description: str | None = None
    hint: str | None = None

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, value: str) -> str:
        if value not in CONFIGS:
            raise ValueError(f"unknown architecture {value!r}{nearest(value, CONFIGS)}")
        return value

    @model_validator(mode="after")
    def _known_config_keys(self, info: ValidationInfo) -> ModelSpec:
        # Those of the file that ships are held right by a test, and looking them up takes a moment of every start.
        if info.context == SHIPPED:
            return self
        known = config_keys(self.architecture)
        wrong = [key for key in self.config if key not in known]
        if wrong:
            shown = [f"unknown key {key!r}{nearest(key, known)}" for key in wrong[:MAX_SHOWN]]
            raise ValueError(f"config: {', '.join(shown)}{and_more(len(wrong))}")
        return self


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Say the first problems that pydantic found, each as one line, with the nearest known name for unknown keys."""
    lines = []
    found = error.errors(include_url=False)
    for item in found[:MAX_SHOWN]:
        where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        where = f"{prefix}{where}" if where else prefix.rstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{nearest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "json_invalid":
            message = f"{message[0].lower()}{message[1:]}"  # the input is the whole file
        elif item["type"] != "value_error" and not isinstance(item["input"], (dict, list, BaseModel)):
            message = f"{message[0].lower()}{message[1:]}, not {item['input']!r:.80}"
        lines.append(f"{where}: {message}" if where else message)
    return [*lines, and_more(len(found)).lstrip(", ")] if len(found) > MAX_SHOWN else lines


def and_more(count: int) -> str:
    """What ends a list of which the first `MAX_SHOWN` of ``count`` were shown: nothing where those were all."""
    return f", and {count - MAX_SHOWN} more" if count > MAX_SHOWN else ""


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the record that ``loc`` points into, below ``model``."""
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
