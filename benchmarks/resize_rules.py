"""Whether a model's answers depend on its resize rule: the same clips under two rules.

    python benchmarks/resize_rules.py [--model camera-motion] [--rules round swscale] FOLDER_OR_CLIP ...

Prints how many of the answers stay the same, the largest change of a score, and the accuracy under both rules where a
folder has labels.csv (as `benchmarks/camera_motion_eval.py` writes it) or the folders' names are labels.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from vidcls.config import ModelSpec
from vidcls.errors import InputError
from vidcls.inference.classifier import Classifier
from vidcls.inference.load import load
from vidcls.video.sources import expand
from vidcls.views.transform import frame_transform


def under(model: Classifier, rule: str) -> Classifier:
    """The model with another resize rule."""
    spec: ModelSpec = model.spec.model_copy(
        update={"input": model.spec.input.model_copy(update={"resize_rule": rule})}
    )
    changed = Classifier(model.engine, spec, model.labels, weights=model.weights, reader=model._reader)
    assert changed._transform == frame_transform(spec.input)
    return changed


def true_labels(sources: list[str]) -> dict[str, str]:
    """Label of each clip by its path, where one is known."""
    known = {}
    for source in map(Path, sources):
        table = source / "labels.csv"
        if table.exists():
            with table.open(newline="", encoding="utf-8") as file:
                known |= {str(source / row["path"]): row["label"] for row in csv.DictReader(file)}
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", metavar="CLIP", nargs="+", help="files or folders")
    parser.add_argument("--model")
    parser.add_argument("--rules", nargs=2, default=["round", "swscale"])
    options = parser.parse_args()
    known = true_labels(options.clips)
    same, changes, right, labeled, clips = 0, [], [0, 0], 0, 0
    with load(options.model, clips=10_000) as model:
        models = [under(model, rule) for rule in options.rules]
        for clip in expand(options.clips):
            try:
                found = [each.predict(clip.path) for each in models]
            except InputError as error:
                print(error)
                continue
            scores = np.array([each.scores for each in found])
            best = [model.labels[int(row.argmax())] for row in scores]
            label = known.get(clip.path) or Path(clip.path).parent.name
            clips += 1
            same += best[0] == best[1]
            changes.append(float(np.abs(scores[0] - scores[1]).max()))
            if label in model.labels:
                labeled += 1
                right = [count + (name == label) for count, name in zip(right, best, strict=True)]
            if best[0] != best[1]:
                margin = np.sort(scores[0])[-1] - np.sort(scores[0])[-2]
                print(f"{clip.path}: {best[0]} → {best[1]}, first ahead by {margin:.3f}, is {label}")
    print(f"{clips} clips: {same} answers the same under {' and '.join(options.rules)}")
    print(f"scores change by {np.median(changes):.1e} (median), {max(changes):.1e} (most)")
    if labeled:
        print(f"right: {right[0]} and {right[1]} of {labeled}")


if __name__ == "__main__":
    main()
