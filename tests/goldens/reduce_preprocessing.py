"""Write the small copies of the preprocessing goldens that the tests carry: a few arrays of each.

python tests/goldens/reduce_preprocessing.py ../shared/goldens
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
KEPT = {
    "scenic-preproc/pipeline.npz": ("portrait_up_2x3/", "portrait_down_short_video_4x1/"),
    "preprocess-hf/io.npz": (
        "frames_portrait",
        "timesformer_portrait",
        "vivit_portrait_v523",
        "vivit_nonorm_portrait_v523",
    ),
    "preprocess-timesformer-fb/io.npz": (
        "frames_portrait",
        "out_portrait_s32_c32_crop0",
        "out_portrait_s32_c32_crop1",
    ),
    "preprocess-vtn/io.npz": ("frames_landscape", "out_landscape"),
}
WHOLE = (
    "scenic-preproc/frame_indices.npz",
    "scenic-preproc/case.json",
    "preprocess-hf/case.json",
    "preprocess-timesformer-fb/case.json",
    "preprocess-timesformer-fb/frame_indices.json",
    "preprocess-vtn/case.json",
    "preprocess-vtn/frame_indices.json",
)


def main(source: Path) -> None:
    for name, prefixes in KEPT.items():
        target = HERE / name
        target.parent.mkdir(exist_ok=True)
        with np.load(source / name) as arrays:
            np.savez_compressed(
                target, **{key: arrays[key] for key in arrays.files if key.startswith(prefixes)}
            )
    for name in WHOLE:
        if name.endswith(".json"):
            (HERE / name).write_text(
                json.dumps(json.loads((source / name).read_text()), separators=(",", ":")) + "\n"
            )
        else:
            shutil.copyfile(source / name, HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
