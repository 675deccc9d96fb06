"""How well the bundled model tells camera motion in real pictures: a held-out set, and a classical baseline beside it.

    python benchmarks/camera_motion_eval.py OUT [--photos DIR] [--videos DIR] [--clips 200] [--seed 1]

Photographs and footage that the model never saw (it saw none at all: it was trained on textures made by rule) are moved
by known paths and encoded as ordinary mp4 at several sizes and frame rates; this file shares no code with the training
clips' generator. Without --photos, the photographs that scikit-learn and matplotlib bring along are used. Writes the
clips, labels.csv, report.json and report.md into OUT.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import camera_motion_baseline
import cv2
import numpy as np

LABELS = (
    "static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll clockwise",
    "roll counter-clockwise", "shake",
)  # fmt: skip
SIZES = ((320, 240), (640, 360), (426, 240), (480, 480), (240, 426), (854, 480), (1280, 720))
RATES = (
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
    Fraction(15),
)
IMAGES, FILMS = {".jpg", ".jpeg", ".png"}, {".mp4", ".mkv", ".avi", ".mov", ".webm"}
Source = tuple[str, Path]


def sample_photographs() -> list[Path]:
    """Photographs that come with installed packages."""
    import matplotlib
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [*sorted(folder.glob("*.jpg")), hopper]


def read_source(source: Source, rng: np.random.Generator, frames: int, fps: float) -> list[np.ndarray]:
    """One photograph, or footage at the new clip's pace: at least one picture (h, w, 3) RGB."""
    kind, path = source
    if kind == "photo" and path.suffix.lower() in IMAGES:
        return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 25)
        film = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
    if kind == "photo":
        return [film[int(rng.integers(len(film)))]]
    need = int(frames * rate / fps) + 1
    start = int(rng.integers(max(1, len(film) - need)))
    picked = [start + int(i * rate / fps) for i in range(frames)]
    return [film[i] if i < len(film) else film[max(0, 2 * len(film) - 2 - i)] for i in picked]


def ease(kind: str, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Progress 0 to 1 over relative time `u`."""
    if kind == "cosine":
        return 0.5 - 0.5 * np.cos(np.pi * u)
    if kind == "stop":
        return np.clip(u / rng.uniform(0.55, 0.9), 0, 1)
    if kind == "start":
        wait = rng.uniform(0.1, 0.45)
        return np.clip((u - wait) / (1 - wait), 0, 1)
    return u


def camera(label: str, frames: int, fps: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shift of the picture right and down (shares of its width and height), its magnification and turn (degrees)."""
    u = np.linspace(0, 1, frames)
    progress = ease(str(rng.choice(["linear", "cosine", "stop", "start"], p=[0.4, 0.35, 0.12, 0.13])), u, rng)
    zero = np.zeros(frames)
    path = {"right": zero.copy(), "down": zero.copy(), "scale": np.ones(frames), "turn": zero.copy()}
    travel = float(np.exp(rng.uniform(np.log(0.08), np.log(0.6))))
    if label in ("pan left", "pan right"):
        path["right"] += travel * (progress - 0.5) * (1 if label == "pan left" else -1)
    elif label in ("tilt up", "tilt down"):
        path["down"] += travel * (progress - 0.5) * (1 if label == "tilt up" else -1)
    elif label in ("zoom in", "zoom out"):
        scale = np.log(rng.uniform(1.15, 2.0)) * (1 if label == "zoom in" else -1)
        path["scale"] = np.exp(scale * (progress - 0.5))
    elif label.startswith("roll"):
        angle = float(np.exp(rng.uniform(np.log(6), np.log(50))))
        path["turn"] += angle * (progress - 0.5) * (-1 if label == "roll clockwise" else 1)
    if label == "shake":
        size, window = rng.uniform(0.01, 0.04), max(1, int(fps * rng.uniform(0.02, 0.12)))
        for name, share in (("right", 1.0), ("down", 1.0), ("turn", rng.uniform(0, 30))):
            noise = np.convolve(rng.normal(size=frames + 4 * window), np.ones(window) / window, "same")
            noise = noise[2 * window : 2 * window + frames]
            path[name] += share * size * (noise - noise.mean()) / (noise.std() + 1e-9)
    elif rng.random() < 0.5:  # an unsteady hand
        for name in ("right", "down"):
            path[name] += rng.uniform(0.0005, 0.002) * np.sin(
                2 * np.pi * rng.uniform(0.5, 3) * u * frames / fps
            )
    return path


def film(pictures: list[np.ndarray], path: dict[str, np.ndarray], width: int, height: int) -> np.ndarray:
    """Move a window over the pictures; where it leaves them they are mirrored."""
    source_h, source_w = pictures[0].shape[:2]
    reach_x, reach_y = np.ptp(path["right"]) + 1, np.ptp(path["down"]) + 1
    # The window is chosen so that its way mostly stays inside the picture.
    fit = (
        min(source_w / (width * reach_x), source_h / (height * reach_y))
        * min(1.0, path["scale"].min())
        * 0.95
    )
    fit *= 0.8 if np.ptp(path["turn"]) else 1.0
    frames = np.empty((len(path["right"]), height, width, 3), np.uint8)
    for i in range(len(frames)):
        picture = pictures[i % len(pictures)]
        angle, scale = np.radians(path["turn"][i]), path["scale"][i] / fit
        c, s = np.cos(angle) * scale, np.sin(angle) * scale
        turn = np.array([[c, -s], [s, c]])
        shift = np.array([width * (0.5 + path["right"][i]), height * (0.5 + path["down"][i])])
        matrix = np.column_stack([turn, shift - turn @ (np.array([source_w, source_h]) / 2)])
        if scale < 0.6:  # warpAffine does not antialias
            picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
        frames[i] = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return frames


def write_clip(target: Path, frames: np.ndarray, fps: Fraction, crf: int) -> None:
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def make_set(out: Path, sources: list[Source], clips: int, seed: int) -> list[dict[str, str]]:
    """Write the clips and labels.csv; one clip in ten is cut in the middle to another source."""
    rows = []
    for index in range(clips):
        rng = np.random.default_rng([seed, index])
        label = LABELS[index % len(LABELS)]
        width, height = SIZES[int(rng.choice(len(SIZES), p=[0.22, 0.25, 0.18, 0.1, 0.1, 0.1, 0.05]))]
        fps = RATES[int(rng.choice(len(RATES), p=[0.15, 0.25, 0.15, 0.2, 0.08, 0.1, 0.07]))]
        count = int(rng.uniform(1.6, 4.5) * fps)
        path = camera(label, count, float(fps), rng)
        source = sources[(index // len(LABELS) + index) % len(sources)]
        frames = film(read_source(source, rng, count, float(fps)), path, width, height)
        cut = rng.random() < 0.1
        if cut:
            other = sources[int(rng.integers(len(sources)))]
            at = int(count * rng.uniform(0.3, 0.7))
            frames[at:] = film(read_source(other, rng, count, float(fps)), path, width, height)[at:]
        name = f"{index:04d}-{label.replace(' ', '-')}.mp4"
        write_clip(out / name, frames, fps, int(rng.integers(18, 31)))
        rows.append(
            {"path": name, "label": label, "kind": source[0], "source": source[1].name, "cut": str(int(cut))}
        )
    with (out / "labels.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def model_answers(weights: str | None) -> Callable[[Path], str]:
    """The model's way: exactly `vidcls predict`."""
    from vidcls.inference.load import load

    classifier = load(weights)
    return lambda path: str(classifier.predict(path, top_k=1).row["predictions"][0]["label"])


def score(rows: list[dict[str, str]], answers: list[str]) -> dict[str, Any]:
    """Top-1 in all, by class, by kind of source, and the confusion matrix (rows: truth)."""
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True)]
    matrix = [[sum(r["label"] == a and got == b for r, got in pairs) for b in LABELS] for a in LABELS]

    def share(keep: Callable[[dict[str, str]], bool]) -> float | None:
        hits = [got == r["label"] for r, got in pairs if keep(r)]
        return round(float(np.mean(hits)), 4) if hits else None

    kinds = sorted({r.get("kind", "") for r in rows})
    return {
        "clips": len(rows),
        "top1": share(lambda r: True),
        "per_class": {name: share(lambda r, name=name: r["label"] == name) for name in LABELS},
        "per_kind": {kind: share(lambda r, kind=kind: r.get("kind", "") == kind) for kind in kinds},
        "cut": share(lambda r: r.get("cut") == "1"),
        "confusion": matrix,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: both methods by class, then the confusion matrices."""
    names = list(results)
    lines = ["| class | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines.append("| **top-1** | " + " | ".join(f"**{results[n]['top1']:.1%}**" for n in names) + " |")
    for group in ("per_class", "per_kind"):
        for key in results[names[0]][group]:
            shown = [results[n][group][key] for n in names]
            lines.append(
                f"| {key or 'all'} | " + " | ".join("–" if v is None else f"{v:.1%}" for v in shown) + " |"
            )
    for n in names:
        lines += ["", f"Confusion of the {n} (rows: truth; columns in the same order):", ""]
        lines += ["| | " + " | ".join(LABELS) + " |", "|---|" + "---|" * len(LABELS)]
        for name, row in zip(LABELS, results[n]["confusion"], strict=True):
            lines.append(f"| {name} | " + " | ".join(str(v) for v in row) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", type=Path, help="folder for clips and report; a folder with labels.csv is only scored"
    )
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--videos", type=Path, help="folder of footage")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", help="checkpoint to score instead of the bundled one")
    parser.add_argument("--no-baseline", action="store_true", help="score the model alone")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if (args.out / "labels.csv").exists():
        with (args.out / "labels.csv").open(newline="") as existing:
            rows = list(csv.DictReader(existing))
    else:
        photos = (
            sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in IMAGES)
            if args.photos
            else sample_photographs()
        )
        films = sorted(p for p in args.videos.rglob("*") if p.suffix.lower() in FILMS) if args.videos else []
        sources: list[Source] = [("photo", p) for p in photos + films] + [("footage", p) for p in films]
        rows = make_set(args.out, sources, args.clips, args.seed)
    results: dict[str, dict[str, Any]] = {}
    answer = model_answers(args.weights)
    results["model"] = score(rows, [answer(args.out / r["path"]) for r in rows])
    if not args.no_baseline:
        cv2.setNumThreads(1)
        results["baseline"] = score(
            rows, [camera_motion_baseline.classify(args.out / r["path"]) for r in rows]
        )
    (args.out / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "report.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
