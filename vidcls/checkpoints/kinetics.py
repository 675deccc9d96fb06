"""Classifiers of Kinetics-710 narrowed to Kinetics-400, as VideoMAE V2's authors score their distilled models.

Kinetics-710 is the union of Kinetics-400, 600 and 700 (Li et al. 2022, UniFormerV2). A classifier of Kinetics-400 is a
selection of its rows, one for each of the 400 classes: OpenGVLab/VideoMAEv2, ``misc/``. Classes go by name there, and
all names but these are the same in both lists.
"""

from __future__ import annotations

from dataclasses import replace

from vidcls.checkpoints.base import Checkpoint
from vidcls.zoo.labels import load_labels

RENAMED = {
    "balloon blowing": "inflating balloons",
    "changing wheel": "changing wheel (not on bike)",
    "cooking sausages": "cooking sausages (not on barbeque)",
    "drinking": "sipping cup",
    "dying hair": "dyeing hair",
    "garbage collecting": "person collecting garbage",
    "hugging": "hugging baby",
    "making bed": "making the bed",
    "opening bottle": "opening wine bottle",
    "picking fruit": "picking apples",
    "skiing (not slalom or crosscountry)": "skiing mono",
    "sniffing": "smelling feet",
    "tying tie": "tying necktie",
}
"""Name in Kinetics-400 → name in Kinetics-710."""

ALL, SELECTED = 710, 400


def kinetics400_rows() -> list[int]:
    """Where each class of Kinetics-400 is among those of Kinetics-710."""
    places = {name: row for row, name in enumerate(load_labels("kinetics710"))}
    return [places[RENAMED.get(name, name)] for name in load_labels("kinetics400")]


def select_classes(checkpoint: Checkpoint, num_classes: int | None) -> Checkpoint:
    """Narrow a classifier of Kinetics-710 where one of 400 classes is wanted; any other is returned as it is."""
    if num_classes != SELECTED or checkpoint.config.get("num_classes") != ALL:
        return checkpoint
    rows = kinetics400_rows()
    head = {name: checkpoint.state[name][rows] for name in ("head.weight", "head.bias")}
    return replace(
        checkpoint,
        config={**checkpoint.config, "num_classes": SELECTED},
        state={**checkpoint.state, **head},
        labels=load_labels("kinetics400"),
        notes=(*checkpoint.notes, "the 400 classes of Kinetics-400 were selected from Kinetics-710's"),
    )
