"""models.yaml and other settings, read into frozen and checked records. Imports no torch.

The registry is built from several files, later ones winning: the one that ships with vidcls, the user's own
(``models.yaml`` in the configuration folder), ``./models.yaml``, and the file given with ``--registry``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from vidcls.config.architecture_keys import ARCHITECTURE_KEYS
from vidcls.errors import ConfigError, UsageError
from vidcls.paths import user_config_dir

MAX_YAML_BYTES = 4 * 1024**2
MAX_YAML_DEPTH = 64


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
        sampling: Rule by which clips are placed in time; see ``vidcls.views.transform``.
        image_size: Height and width of a crop in pixels.
        resize: Length of one side in pixels before the crop, or exact (h, w), or None.
        resize_side: Which side ``resize`` is: ``short``, or ``long`` (timm's ``border``), to be padded.
        resize_rule: ``truncate`` (bilinear without antialias, cut to whole gray levels: scenic), ``round``
            (antialiased, rounded: PIL, HF), ``torchvision`` (the same with coarser weights: HF since v5),
            ``float`` (bilinear without antialias, on floats: SlowFast), or ``opencv`` (bilinear without antialias
            in whole numbers: VideoMAE).
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
    """

    num_frames: int = Field(32, ge=1, le=65536)
    stride: int = Field(2, ge=1, le=4096)
    fps: float | None = Field(None, gt=0, le=1000)
    num_views: int = Field(4, ge=1, le=1024)
    num_crops: Literal[1, 3] = 1
    sampling: Literal[
        "vivit", "timesformer", "vtn", "segments", "uniform", "videomae", "videomae-sparse", "vjepa2"
    ] = "vivit"
    image_size: Pair = (224, 224)
    resize: Annotated[int, Field(ge=1, le=8192)] | Pair | None = 256
    resize_side: Literal["short", "long"] = "short"
    resize_rule: Literal["truncate", "round", "torchvision", "float", "opencv"] = "truncate"
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

    @model_validator(mode="after")
    def _mean_with_std(self) -> InputSpec:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together; give both or neither")
        if self.std is not None and min(abs(s) for s in self.std) < 1e-8:
            raise ValueError("std must not be zero")
        return self


class WeightsSpec(Spec):
    """Where a model's weights are: exactly one of ``url``, ``hub``, ``path`` and ``bundled``.

    Attributes:
        url: An http(s) address of one file.
        hub: A Hugging Face repository, ``owner/name`` or ``owner/name@revision``.
        path: A local file or folder; in a registry file it counts from that file's folder.
        bundled: Name of a file in ``vidcls/zoo/bundled``.
        sha256: Checksum in hexadecimal digits, where it is known.
        format: Name of the checkpoint format, where its content leaves a doubt.
    """

    url: str | None = Field(None, pattern=r"^https?://\S+$", max_length=2048)
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$", max_length=256)
    path: str | None = None
    bundled: str | None = Field(None, pattern=r"^[\w-]+(\.[\w-]+)+$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    format: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> WeightsSpec:
        given = [key for key in ("url", "hub", "path", "bundled") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of url, hub, path and bundled")
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
    """

    top1: float | None = Field(None, ge=0, le=100)
    top5: float | None = Field(None, ge=0, le=100)
    views: str | None = None
    params: int | None = Field(None, ge=0)
    gmacs: float | None = Field(None, ge=0)
    source: str | None = None


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
        architecture: One of ``ARCHITECTURE_KEYS``.
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
        if value not in ARCHITECTURE_KEYS:
            raise ValueError(f"unknown architecture {value!r}{nearest(value, ARCHITECTURE_KEYS)}")
        return value

    @model_validator(mode="after")
    def _known_config_keys(self) -> ModelSpec:
        known = ARCHITECTURE_KEYS[self.architecture]
        wrong = [f"unknown key {key!r}{nearest(key, known)}" for key in self.config if key not in known]
        if wrong:
            raise ValueError("config: " + ", ".join(wrong))
        return self


class Registry(Mapping[str, ModelSpec]):
    """All known models by name, in the order of the files.

    Args:
        models: Name → entry.
        default: Name of the model that is used when none is asked for.
    """

    def __init__(self, models: dict[str, ModelSpec], default: str | None) -> None:
        self._models = models
        self.default = default

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, name: str) -> ModelSpec:
        """Return the entry called ``name``.

        Raises:
            UsageError: There is none; the message names the nearest ones.
        """
        try:
            return self._models[name]
        except KeyError:
            raise UsageError(
                name, f"no such model{nearest(name, self._models)}", "`vidcls models` lists them all"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._models


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` for the known word nearest to ``word``, or an empty string."""
    matches = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f", did you mean {matches[0]!r}?" if matches else ""


class _NoRepeats:
    """What a YAML loader needs to refuse repeated keys."""

    def construct_mapping(self, node: yaml.nodes.MappingNode, deep: bool = False) -> dict[Any, Any]:
        loader: Any = super()
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key!r} stands twice")
            seen.add(key)
        mapping: dict[Any, Any] = loader.construct_mapping(node, deep)
        return mapping


# libyaml's parser takes a sixth of the time, where PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_NoRepeats, _SafeLoader):  # type: ignore[misc]  # one of two classes
    """safe_load without repeated keys."""


def _check_events(text: str) -> None:
    """Refuse aliases, which can grow a small file without bound, and nesting that would exhaust the stack.

    A pass of its own, as libyaml composes a document in C, where neither can be stopped.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed here; write the values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MAX_YAML_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: The file is missing, too large, not YAML, or no mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(str(path), f"larger than {MAX_YAML_BYTES >> 20} MiB", "is it the right file?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(str(path), f"cannot be read ({reason})", "check the path") from None
    try:
        _check_events(text)
        data = _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(str(path), f"not valid YAML: {' '.join(str(error).split())}", "mend it") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(str(path), "must hold a mapping of names to values", "see models.yaml of vidcls")
    return data


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Say each problem that pydantic found as one line, with the nearest known name for unknown keys."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        where = f"{prefix}{where}" if where else prefix.rstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{nearest(str(item['loc'][-1]), _fields_at(model, item['loc'][:-1]))}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] != "value_error" and not isinstance(item["input"], (dict, list, BaseModel)):
            message = f"{message[0].lower()}{message[1:]}, not {item['input']!r}"
        lines.append(f"{where}: {message}")
    return lines


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


def builtin_registry_path() -> Path:
    """Return the models.yaml that ships with vidcls: inside the wheel, or at the checkout's top level."""
    inside = Path(__file__).parents[1] / "models.yaml"
    return inside if inside.is_file() else Path(__file__).parents[2] / "models.yaml"


def registry_paths(extra: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the registry files that exist, weakest first; ``extra`` must exist."""
    optional = [user_config_dir() / "models.yaml", Path("models.yaml")]
    paths = [builtin_registry_path()]
    for path in [p for p in optional if p.is_file()] + ([Path(extra)] if extra is not None else []):
        if not any(path.exists() and path.samefile(known) for known in paths):
            paths.append(path)
    return paths


def load_registry(extra: str | os.PathLike[str] | None = None) -> Registry:
    """Read and check all registry files.

    An entry may name another as its ``base``: what it leaves out is taken from there, and its ``config``,
    ``input`` and ``published`` are laid over the base's key by key. An entry of a later file replaces one of
    the same name whole, unless it names that one as its base.

    Args:
        extra: A file given with ``--registry``.

    Raises:
        ConfigError: With all problems of all files together.
    """
    raw: dict[str, dict[str, Any]] = {}
    default: str | None = None
    found: list[str] = []
    for path in registry_paths(extra):
        data = read_yaml(path)
        found += [
            f"{path}: {key}: unknown key{nearest(key, ('default', 'models'))}"
            for key in data
            if key not in ("default", "models")
        ]
        default = data.get("default", default)
        models = data.get("models") or {}
        if not isinstance(models, dict):
            raise ConfigError(
                str(path), "models: must be a mapping of names to entries", "see `vidcls models`"
            )
        for name, entry in models.items():
            if not isinstance(entry, dict):
                found.append(f"{path}: models.{name}: must be a mapping")
                continue
            raw[str(name)] = _resolve_paths(_with_base(str(name), entry, raw, str(path), found), path.parent)
    specs: dict[str, ModelSpec] = {}
    for name, entry in raw.items():
        try:
            specs[name] = ModelSpec(name=name, **{str(k): v for k, v in entry.items() if k != "name"})
        except ValidationError as error:
            found += problems(error, ModelSpec, f"models.{name}.")
    if default is not None and default not in raw:
        found.append(f"default: no model is called {default!r}{nearest(str(default), raw)}")
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise ConfigError("models.yaml", f"{count}:\n  " + "\n  ".join(found), "")
    return Registry(specs, default)


def _with_base(
    name: str, entry: dict[str, Any], known: dict[str, dict[str, Any]], path: str, found: list[str]
) -> dict[str, Any]:
    """Lay ``entry`` over the entry that it names as its base, which must stand before it."""
    if "base" not in entry:
        return dict(entry)
    base = known.get(str(entry["base"]))
    if base is None:
        hint = nearest(str(entry["base"]), known)
        found.append(f"{path}: models.{name}.base: no entry before it is called {entry['base']!r}{hint}")
        return {key: value for key, value in entry.items() if key != "base"}
    merged = dict(base)
    for key, value in entry.items():
        if key == "base":
            continue
        below = merged.get(key)
        merge = (
            key in ("config", "input", "published") and isinstance(value, dict) and isinstance(below, dict)
        )
        merged[key] = {**below, **value} if merge else value  # type: ignore[dict-item]
    return merged


def _resolve_paths(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let paths in an entry count from the folder of the file that holds it."""
    weights = entry.get("weights")
    if isinstance(weights, dict) and isinstance(weights.get("path"), str):
        entry = {**entry, "weights": {**weights, "path": str(folder / Path(weights["path"]).expanduser())}}
    labels = entry.get("labels")
    if isinstance(labels, str) and (folder / labels).is_file():
        entry = {**entry, "labels": str(folder / labels)}
    return entry
