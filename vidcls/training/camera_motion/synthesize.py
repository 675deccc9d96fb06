"""Labeled camera-motion clips as files: mp4 and a table of what is in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidcls.errors import OutputError, UsageError
from vidcls.paths import replacing
from vidcls.training.camera_motion.backgrounds import Backgrounds, FileBackgrounds, TextureBackgrounds
from vidcls.training.camera_motion.camera import LABELS, CameraPath, make_path
from vidcls.training.camera_motion.dataset import make_scene, with_cut
from vidcls.training.camera_motion.degradations import encode, light, overlays, sensor_noise
from vidcls.training.camera_motion.scene import render
from vidcls.training.data.listing import TABLE

# Width, height and how often; small and large, wide, square-ish and upright.
SIZES: tuple[tuple[int, int, float], ...] = (
    (160, 120, 0.10), (320, 240, 0.18), (426, 240, 0.16), (480, 360, 0.1), (640, 360, 0.2), (640, 480, 0.08),
    (360, 640, 0.06), (480, 480, 0.05), (854, 480, 0.05), (1280, 720, 0.02),
)  # fmt: skip
RATES: tuple[tuple[Fraction, float], ...] = (
    (Fraction(15), 0.08), (Fraction(24000, 1001), 0.12), (Fraction(24), 0.1), (Fraction(25), 0.25),
    (Fraction(30000, 1001), 0.1), (Fraction(30), 0.2), (Fraction(50), 0.05), (Fraction(60), 0.1),
)  # fmt: skip
COLUMNS = (
    "path", "label", "width", "height", "fps", "seconds", "pan", "tilt", "log_zoom", "roll_degrees", "profile",
    "cut_seconds",
)  # fmt: skip
SETTINGS = "synthesize.json"


@dataclass(frozen=True)
class ClipPlan:
    """One clip to be filmed; everything else follows from `seed` and `index`.

    Attributes:
        seed: Seed of the set.
        index: Number of the clip.
        label: One of `LABELS`.
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        frames: Length in frames.
        path: The camera's path.
        cut: Whether there is a cut in it.
    """

    seed: int
    index: int
    label: str
    width: int
    height: int
    fps: Fraction
    frames: int
    path: CameraPath
    cut: bool

    @property
    def name(self) -> str:
        return f"{self.index:05d}-{self.label.replace(' ', '-')}.mp4"

    @property
    def seconds(self) -> float:
        return float(self.frames / self.fps)


def plan_clip(seed: int, index: int) -> ClipPlan:
    """Decide what clip `index` of a set is; labels take turns."""
    rng = np.random.default_rng([seed, index, 0])
    label = LABELS[index % len(LABELS)]
    width, height, _ = SIZES[int(rng.choice(len(SIZES), p=[share for *_, share in SIZES]))]
    fps = RATES[int(rng.choice(len(RATES), p=[share for _, share in RATES]))][0]
    frames = int(rng.uniform(1.5, 4.5) * fps)
    path = make_path(rng, label, float(frames / fps))
    return ClipPlan(seed, index, label, width, height, fps, frames, path, bool(rng.random() < 0.08))


def film(plan: ClipPlan, backgrounds: Backgrounds | None = None) -> tuple[np.ndarray, float | None]:
    """Film a planned clip.

    Args:
        plan: What to film.
        backgrounds: Where the pictures come from; textures by rule when None.

    Returns:
        Frames (t, h, w, 3) uint8 RGB, and the seconds at which it is cut or None.
    """
    rng = np.random.default_rng([plan.seed, plan.index, 1])
    side = min(plan.width, plan.height)
    backgrounds = backgrounds or TextureBackgrounds(rng, count=3, side=int(np.clip(side * 1.6, 384, 800)))
    scene = make_scene(rng, plan.label, plan.seconds, side, backgrounds, plan.path)
    if plan.cut:
        scene = with_cut(rng, scene, side, backgrounds)
    times = np.arange(plan.frames) / float(plan.fps)
    blurred = rng.random() < 0.25
    shutter = rng.uniform(0.2, 0.6) / float(plan.fps) if blurred else 0.0
    frames = render(scene, times, (plan.height, plan.width), shutter, 3 if blurred else 1)
    overlays(rng, frames)
    frames = light(rng, frames, times)
    if rng.random() < 0.4:
        frames = sensor_noise(rng, frames, float(rng.uniform(0.5, 8)))
    return frames, scene.cut_at if plan.cut else None


def row(plan: ClipPlan, cut: float | None) -> dict[str, Any]:
    """What the table says of a clip: pan and tilt in short sides of the frame, right and up positive."""
    pan, tilt, zoom, roll = (plan.path.change + plan.path.side_change).tolist()
    return {
        "path": plan.name,
        "label": plan.label,
        "width": plan.width,
        "height": plan.height,
        "fps": round(float(plan.fps), 3),
        "seconds": round(plan.seconds, 3),
        "pan": round(pan, 4),
        "tilt": round(tilt, 4),
        "log_zoom": round(zoom, 4),
        "roll_degrees": round(float(np.degrees(roll)), 2),
        "profile": plan.path.profile.kind,
        "cut_seconds": "" if cut is None else round(cut, 3),
    }


def prepare(out: Path, settings: dict[str, Any], overwrite: bool) -> list[dict[str, str]]:
    """Make the folder ready, or continue a set that was interrupted.

    Returns:
        Rows of the clips that are already there.

    Raises:
        UsageError: The folder holds something else, and it may not be overwritten.
        OutputError: The folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not any(out.iterdir()):
            pass
        elif (
            (out / SETTINGS).exists()
            and json.loads((out / SETTINGS).read_text("utf-8")) == settings
            and not overwrite
        ):
            if not (out / TABLE).exists():
                return []
            with (out / TABLE).open(newline="", encoding="utf-8") as table:
                rows = [r for r in csv.DictReader(table) if r["path"] and (out / r["path"]).exists()]
            return rows
        elif not overwrite:
            raise UsageError(str(out), "is not empty", "name a new folder, or add overwrite=True")
        for name in (TABLE, SETTINGS):
            (out / name).unlink(missing_ok=True)
        (out / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
    except (OSError, ValueError) as error:
        raise OutputError(str(out), f"cannot be written ({error})", "name another folder") from error
    return []


def synthesize(
    out: Path,
    clips: int,
    seed: int,
    images: Path | None = None,
    videos: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> list[dict[str, Any]]:
    """Write a set of labeled clips: numbered mp4 files and labels.csv.

    Args:
        out: Folder to write; an interrupted set of the same settings is continued.
        clips: Number of clips; the labels take turns.
        seed: Seed of the set.
        images: Folder of pictures to film instead of textures made by rule.
        videos: Folder of footage to film instead.
        overwrite: Write into a folder that holds something else; its other files stay.
        progress: Called with the number of clips that are done.

    Returns:
        The rows of labels.csv.

    Raises:
        UsageError: Both sources are given, a folder is unsuitable, or `out` is not empty.
        OutputError: The files cannot be written.
    """
    if images and videos:
        raise UsageError("images", "cannot be combined with videos", "choose one")
    folder = images or videos
    backgrounds = FileBackgrounds(folder, videos=videos is not None) if folder else None
    settings = {"clips": clips, "seed": seed, "images": str(images or ""), "videos": str(videos or "")}
    rows: list[dict[str, Any]] = list(prepare(out, settings, overwrite))
    done = {r["path"] for r in rows}
    cv2.setNumThreads(1)
    _write_table(out, rows)
    with (out / TABLE).open("a", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        for index in range(clips):
            plan = plan_clip(seed, index)
            if plan.name not in done:
                rows.append(_write_clip(plan, backgrounds, out))
                writer.writerow(rows[-1])
                table.flush()
            progress(index + 1)
    return rows


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write labels.csv with just these rows, whole or not at all."""
    with replacing(out / TABLE, alone=True) as place, place.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_clip(plan: ClipPlan, backgrounds: Backgrounds | None, out: Path) -> dict[str, Any]:
    """Film and encode one clip under a temporary name, then give it its own."""
    frames, cut = film(plan, backgrounds)
    crf = int(np.random.default_rng([plan.seed, plan.index, 2]).integers(18, 33))
    try:
        with replacing(out / plan.name, alone=True) as place:
            encode(str(place), frames, plan.fps, crf)
    except OSError as error:
        raise OutputError(str(out / plan.name), f"cannot be written ({error})", "free some space") from error
    return row(plan, cut)
