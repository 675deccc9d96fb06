"""Options that say how clips are cut into views, each declared once; see `vidcls.cli.groups`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vidcls.cli.groups import Choices, Options
from vidcls.cli.options import views_option
from vidcls.cli.values import MAX_FRAMES, parse_fps, parse_frames, parse_views_option
from vidcls.errors import UsageError

ALL = "all"


@dataclass(frozen=True)
class NumViews(Options):
    """How many views in time a clip has."""

    num_views: Annotated[
        int | None,
        views_option(
            "--views",
            min=1,
            max=1024,
            help="Temporal views, averaged.  [default: the model's, usually 4]",
        ),
    ] = None


@dataclass(frozen=True)
class AutoViews(Options):
    """`NumViews` where a clip may have as many as its answer needs."""

    num_views: Annotated[
        str | None,
        views_option(
            "--views",
            metavar="N|auto|auto:N",
            help="Temporal views, averaged; auto: only as many as a clip's answer needs, see `vidcls calibrate`.  "
            "[default: the model's, usually 4]",
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        views_option(
            metavar="FILE",
            help="For --views auto: what `vidcls calibrate` wrote.  [default: its usual place]",
        ),
    ] = None

    @property
    def auto(self) -> bool:
        """Whether clips may have fewer views than there are."""
        return isinstance(parse_views_option(self.num_views), str)

    def keywords(self) -> dict[str, Any]:
        found = {**super().keywords(), "num_views": parse_views_option(self.num_views)}
        if self.calibration is not None:
            from vidcls.inference.view_calibration import read_calibration

            found["calibration"] = read_calibration(self.calibration)
        return found


@dataclass(frozen=True)
class SamplingOptions(Options):
    """How a view is sampled and how views are averaged; keywords of `vidcls.load`."""

    num_crops: Annotated[
        int | None,
        views_option(
            "--crops",
            metavar="1|3",
            help="Spatial crops per view.  [default: the model's, usually 1]",
        ),
    ] = None
    stride: Annotated[
        int | None,
        views_option(
            min=1,
            max=4096,
            help="Distance between sampled frames.  [default: the model's, usually 2]",
        ),
    ] = None
    fps: Annotated[
        str,
        views_option(
            metavar="auto|native|N",
            help="auto: space frames in time as in training; native: count the file's frames; "
            "N: resample to N frames per second.",
        ),
    ] = "auto"
    average: Annotated[
        str | None,
        views_option(help="What is averaged over views.  [default: the model's, usually logits]"),
        Choices(("logits", "probs")),
    ] = None

    def keywords(self) -> dict[str, Any]:
        return {**super().keywords(), "fps": parse_fps(self.fps)}


FramesOption = Annotated[
    int | None,
    views_option(
        "--frames",
        min=1,
        max=MAX_FRAMES,
        help="Frames per view.  [default: the model's, usually 32]",
    ),
]


@dataclass(frozen=True)
class ViewOptions(SamplingOptions, NumViews):
    """How a clip is cut into views and how these are averaged; keywords of `vidcls.load`."""

    num_frames: FramesOption = None


@dataclass(frozen=True)
class AutoViewOptions(SamplingOptions, AutoViews):
    """`ViewOptions` where a clip may have as many views as its answer needs."""

    num_frames: FramesOption = None


@dataclass(frozen=True)
class WholeVideoOptions(SamplingOptions, AutoViews):
    """`AutoViewOptions` for commands that may look at every frame, or keep the features of frames."""

    num_frames: Annotated[
        str | None,
        views_option(
            "--frames",
            metavar="N|all",
            help="Frames per view; all: every frame of the file, for models that encode each frame by itself.  "
            "[default: the model's, usually 32]",
        ),
    ] = None
    features: Annotated[
        Path | None,
        views_option(
            metavar="FOLDER",
            help="Store the features of frames here and reuse them, for models that encode each frame by itself.",
        ),
    ] = None

    @property
    def every_frame(self) -> bool:
        """Whether every frame of the file is meant."""
        return self.num_frames == ALL

    @property
    def by_features(self) -> bool:
        """Whether clips are classified by the features of single frames."""
        return self.every_frame or self.features is not None

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of `vidcls.load`.

        Raises:
            UsageError: The number of frames is not one, or several views of every frame are asked for.
        """
        shared = super().keywords()
        del shared["features"]
        if self.auto and self.by_features:
            raise UsageError(
                "num_views=auto", "does not go with features of frames", "give a number of views"
            )
        if not self.every_frame:
            return {**shared, "num_frames": parse_frames(self.num_frames)}
        if (shared["num_views"] or 1) > 1:
            raise UsageError(f"num_views={self.num_views}", "contradicts num_frames=all, which is one view")
        return {**shared, "num_frames": None}
