"""Write the small copies of the ViViT goldens that the tests carry: one example of each, pixels as bytes.

python tests/goldens/reduce_vivit.py ../shared/goldens
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FEATURES = ("model3_default", "model4_dot_product")


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Pixels of the first example; the reference made its input from bytes as ``u8 * (2 / 255) - 1``."""
    pixels = np.rint((x[:1] + 1) * 127.5).astype(np.uint8)
    assert np.abs(pixels.astype(np.float32) * np.float32(2 / 255) - 1 - x[:1]).max() < 2e-7
    return pixels


def main(shared: Path) -> None:
    """Reduce a released-layout checkpoint with its logits, and two models without class token."""
    source, target = shared / "scenic-spacetime", HERE / "scenic-spacetime"
    target.mkdir(exist_ok=True)
    shutil.copyfile(source / "case.json", target / "case.json")
    shutil.copyfile(source / "checkpoint_old.msgpack", target / "checkpoint_old.msgpack")
    with np.load(source / "io.npz") as io:
        outputs = {name: io[name][:1] for name in ("logits", "pre_logits")}
        np.savez_compressed(target / "io.npz", x=to_bytes(io["x"]), **outputs)

    source, target = shared / "scenic-init", HERE / "scenic-features"
    target.mkdir(exist_ok=True)
    case = json.loads((source / "case.json").read_text())
    configs = {name: case["models"][name]["config"] for name in FEATURES}
    kept = {"reference": case["reference"], "configs": configs}
    (target / "case.json").write_text(json.dumps(kept, indent=1) + "\n")
    with np.load(source / "video.npz") as video:
        outputs = {name: video[f"pre_logits/{name}"][:1] for name in FEATURES}
        np.savez_compressed(target / "features.npz", x=to_bytes(video["x"]), **outputs)
    for name in FEATURES:
        shutil.copyfile(source / f"{name}.npz", target / f"{name}.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
