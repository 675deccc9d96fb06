"""Options of ``vidcls train``: groups, and the keys of a recipe that they set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from vidcls.cli import options as o
from vidcls.cli.groups import Choices, Options

DATA, OPTIMIZATION, MACHINE = o.DATA, "Advanced: optimization", "Advanced: machine"
PROBE = "With --probe"


def complete_recipes(incomplete: str) -> list[str]:
    """Offer the names of the recipes that come with vidcls to the shell."""
    from vidcls.training.recipe_file import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


@dataclass(frozen=True)
class DataOptions(o.LabeledOptions):
    """Training and validation data; keys of a recipe."""

    data: Annotated[
        str | None,
        Option(
            metavar="LIST|FOLDER",
            help="A list of path,label, of Kinetics, UCF-101, HMDB-51 or MMAction2; a folder with labels.csv or one "
            "subfolder per class; or synthetic:camera-motion.",
        ),
    ] = None
    val: Annotated[
        str | None,
        Option(
            metavar="LIST|FOLDER|none",
            help="Validation set, in the same forms as --data; none: validate on nothing.  "
            "[default: 20 % of each class, sources kept together]",
        ),
    ] = None
    labels: Annotated[
        str | None,
        Option(
            metavar="FILE", rich_help_panel=DATA, help="Class names, one per line, in the order of their ids."
        ),
    ] = None
    skip_missing: Annotated[
        bool, Option("--skip-missing", rich_help_panel=DATA, help="Skip clips whose file is missing.")
    ] = False
    directions_matter: Annotated[
        bool,
        Option("--directions-matter", rich_help_panel=DATA, help="Left and right carry meaning: never flip."),
    ] = False
    flip: Annotated[
        bool | None,
        Option(
            "--flip/--no-flip",
            rich_help_panel=DATA,
            help="Mirror half of the clips, unless class names speak of left, right or clockwise; with --probe, learn "
            "from mirrored views too.  [default: flip; with --probe, no-flip]",
        ),
    ] = None

    def overrides(self, clips: str | None) -> dict[str, Any]:
        """Return the keys of a recipe that these options set; ``clips`` is the command's argument.

        Raises:
            UsageError: The clips are given twice.
        """
        if clips is not None and self.data is not None:
            from vidcls.errors import UsageError

            raise UsageError("data", f"is given twice, as {clips!r} and {self.data!r}", "give it once")
        return {
            "data": self.data if clips is None else clips,
            "val": self.val,
            "videos": str(self.videos) if self.videos else None,
            "labels": self.labels,
            "labels_format": self.labels_format,
            "delimiter": self.delimiter,
            "multi_label": self.multi_label or None,
            "skip_missing": self.skip_missing or None,
            "augment": {
                "directions_matter": self.directions_matter or None,
                "flip": None if self.flip is None else 0.5 * self.flip,
            },
        }


@dataclass(frozen=True)
class OptimizationOptions(Options):
    """Optimizer, schedule and initial weights; keys of a recipe."""

    epochs: Annotated[int | None, Option(min=1, help="Number of epochs.  [default: 30]")] = None
    lr: Annotated[float | None, Option(help="Base learning rate.  [default: 0.001]")] = None
    batch_size: Annotated[
        int | None, Option(min=1, help="Clips per step, over all devices.  [default: 16]")
    ] = None
    init_from: Annotated[
        str | None,
        Option(
            metavar="PATH|URL|hub:ID|NAME|none",
            rich_help_panel=OPTIMIZATION,
            help="Initial weights: an image ViT, a video checkpoint, a model of the registry, or none for "
            "random weights.  [default: the model's own weights]",
        ),
    ] = None
    micro_batch: Annotated[
        int | None,
        Option(
            min=1,
            rich_help_panel=OPTIMIZATION,
            help="Clips per forward pass on one device; gradients are accumulated.  [default: the whole batch]",
        ),
    ] = None
    layer_decay: Annotated[
        float | None,
        Option(
            rich_help_panel=OPTIMIZATION,
            help="Factor on the learning rate from each layer to the one before it.  [default: 1]",
        ),
    ] = None
    freeze: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            rich_help_panel=OPTIMIZATION,
            help="Parameters to freeze: a name, a pattern, backbone for all but the head, or N for the embeddings and "
            "the first N blocks. Repeatable.",
        ),
    ] = None
    lora: Annotated[
        int | None,
        Option(
            min=1,
            metavar="RANK",
            rich_help_panel=OPTIMIZATION,
            help="Train adapters of this rank on the attention's projections (LoRA), and the head; they are merged in "
            "the checkpoints.",
        ),
    ] = None
    class_weights: Annotated[
        str | None,
        Option(
            metavar="balanced",
            rich_help_panel=OPTIMIZATION,
            help="Weight each class in the loss by the inverse of its number of clips.",
        ),
        Choices(("balanced",)),
    ] = None
    sampler: Annotated[
        str | None,
        Option(
            rich_help_panel=OPTIMIZATION,
            help="balanced: each class comes equally often, clips of small ones repeatedly.  [default: shuffle]",
        ),
        Choices(("shuffle", "balanced")),
    ] = None
    best: Annotated[
        str | None,
        Option(
            rich_help_panel=OPTIMIZATION,
            help="Figure of the validation by which the best epoch is chosen.  [default: top1, or map of several "
            "labels]",
        ),
        Choices("vidcls.training.recipe:FIGURES"),
    ] = None
    patience: Annotated[
        int | None,
        Option(
            min=1,
            metavar="EPOCHS",
            rich_help_panel=OPTIMIZATION,
            help="Stop after so many epochs without a better validation.  [default: never]",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Option(min=0, rich_help_panel=OPTIMIZATION, help="Seed of all random numbers.  [default: 0]"),
    ] = None
    precision: Annotated[
        str | None,
        Option(rich_help_panel=MACHINE, help="Number format.  [default: fp32]"),
        Choices(("fp32", "bf16", "fp16")),
    ] = None
    workers: Annotated[
        int | None,
        Option(min=0, rich_help_panel=MACHINE, help="Processes that read clips.  [default: spare cores]"),
    ] = None

    cache_frames: Annotated[
        float | None,
        Option(
            min=0,
            metavar="GB",
            rich_help_panel=MACHINE,
            help="Gigabytes of the disk for resized frames: epochs after the first do not decode.  [default: 0]",
        ),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """Return the keys of a recipe that these options set."""
        return {
            "init": {"from": self.init_from},
            "schedule": {"epochs": self.epochs},
            "optimizer": {"lr": self.lr, "layer_decay": self.layer_decay},
            "batch_size": self.batch_size,
            "micro_batch": self.micro_batch,
            "freeze": self.freeze or None,
            "lora": self.lora,
            "class_weights": self.class_weights,
            "sampler": self.sampler,
            "best": self.best,
            "patience": self.patience,
            "seed": self.seed,
            "precision": self.precision,
            "workers": self.workers,
            "frame_cache": self.cache_frames,
        }


@dataclass(frozen=True)
class ProbeOptions(Options):
    """A small classifier on a frozen model, in place of training all of it."""

    probe: Annotated[
        bool,
        Option(
            "--probe",
            help="Fit a linear classifier on the frozen model's embeddings: minutes on a CPU, with cross-validated "
            "accuracy.",
        ),
    ] = False
    probe_kind: Annotated[
        str | None,
        Option(
            rich_help_panel=PROBE,
            help="attentive: train an attentive pooler on the model's tokens, by --epochs, --lr and --batch-size.  "
            "[default: linear]",
        ),
        Choices(("linear", "attentive")),
    ] = None
    folds: Annotated[
        int | None,
        Option(
            min=2,
            max=100,
            rich_help_panel=PROBE,
            help="Parts of the cross-validation.  [default: 5; attentive: 3]",
        ),
    ] = None
    cache_tokens: Annotated[
        float | None,
        Option(
            min=0.001,
            metavar="GB",
            rich_help_panel=PROBE,
            help="Gigabytes of the disk for the tokens that an attentive probe learns from.  [default: 20]",
        ),
    ] = None
    num_views: Annotated[
        int | None,
        Option(
            "--views",
            min=1,
            max=64,
            rich_help_panel=PROBE,
            help="Temporal views per clip.  [default: the model's]",
        ),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """Return the keys of a recipe that these options set.

        Raises:
            UsageError: An option is given without ``probe``.
        """
        given = {
            "--views": self.num_views,
            "--probe-kind": self.probe_kind,
            "--folds": self.folds,
            "--cache-tokens": self.cache_tokens,
        }
        needing = [option for option, value in given.items() if value is not None]
        if needing and not self.probe:
            from vidcls.errors import UsageError

            raise UsageError("probe", f"is missing, and {needing[0]} needs it", "add it")
        return {
            "input": {"num_views": self.num_views},
            "attentive": self.probe_kind == "attentive" or None,
            "folds": self.folds,
            "token_cache": self.cache_tokens,
        }


@dataclass(frozen=True)
class RunOptions(Options):
    """The recipe, and how this run of it goes."""

    config: Annotated[
        str | None,
        Option(
            "--config",
            "-c",
            autocompletion=complete_recipes,
            metavar="RECIPE",
            help="A recipe: a YAML file, or vivit-k400, vivit-epic, vivit-ssv2, timesformer-k400, vtn-k400, "
            "camera-motion. Options take precedence over it.",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any key of the recipe, such as schedule.kind=cosine. Repeatable.",
        ),
    ] = None
    resume: Annotated[
        bool, Option("--resume", help="Resume the run in --output exactly where it stopped.")
    ] = False
    check: Annotated[
        bool,
        Option("--check", help="Check recipe, data and model, print what would be done, and stop."),
    ] = False
    device: Annotated[
        str, Option(rich_help_panel=MACHINE, metavar="auto|cpu", help="auto: what accelerate finds.")
    ] = "auto"
    tensorboard: Annotated[
        bool,
        Option("--tensorboard", rich_help_panel=MACHINE, help="Also write the metrics for TensorBoard."),
    ] = False
    tracker: Annotated[
        str | None,
        Option(
            metavar="wandb|mlflow|…",
            rich_help_panel=MACHINE,
            help="Also log the metrics to a service that accelerate knows: W&B, MLflow, Comet, Aim, ClearML …",
        ),
    ] = None

    def check_probe(self) -> None:
        """Refuse what a probe does not do."""
        from vidcls.errors import UsageError

        if self.resume:
            problem = "a probe is quick to repeat: what was computed of the clips is in the cache"
            raise UsageError("resume", problem, "run the same command without it")
        given = {"tensorboard": self.tensorboard, "tracker": self.tracker is not None}
        for name in (name for name, there in given.items() if there):
            raise UsageError(name, "a probe has no metrics over time", "see probe.json in the run's folder")
