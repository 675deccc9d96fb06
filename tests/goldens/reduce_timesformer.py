"""Write the small copy of a TimeSformer golden that the tests carry: its input as the seed it was drawn from.

python tests/goldens/reduce_timesformer.py ../shared/goldens
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch

CASE, SEED = "timesformer-fb-space", 12  # the scheme that transformers computes differently


def main(shared: Path) -> None:
    """Copy the checkpoint, and its input and output without the pixels."""
    source, target = shared / CASE, Path(__file__).parent / CASE
    target.mkdir(exist_ok=True)
    shutil.copyfile(source / "case.json", target / "case.json")
    shutil.copyfile(source / "model.safetensors", target / "model.safetensors")
    with np.load(source / "io.npz") as io:
        drawn = torch.randn(io["input"].shape, generator=torch.Generator().manual_seed(SEED)).numpy()
        assert np.abs(drawn - io["input"]).max() < 1e-6
        kept = {name: io[name] for name in ("logits", "logits_f64", "features")}
        np.savez_compressed(target / "io.npz", seed=SEED, shape=io["input"].shape, **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
