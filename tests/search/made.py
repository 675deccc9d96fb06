"""Files of vectors as `vidcls embed` writes them, made of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.output.embedding import EMBEDDING_FORMATS, EmbeddingLayout, clip_row

SETTINGS: dict[str, Any] = {
    "kind": "embeddings",
    "model": "camera-motion",
    "architecture": "vivit-fe",
    "weights_sha256": "0" * 64,
    "layer": "head",
    "per": "clip",
    "columns": {},
}


def write_vectors(
    path: Path, vectors: Sequence[Any], names: Sequence[str] | None = None, **changes: Any
) -> Path:
    """Write one clip's vectors (d,) or (n, d) for each item; None is a clip that failed."""
    arrays = [None if one is None else np.atleast_2d(np.asarray(one, np.float32)) for one in vectors]
    dimension = next((one.shape[1] for one in arrays if one is not None), 3)
    settings = {**SETTINGS, "dimension": dimension, **changes}
    rows = []
    for number, one in enumerate(arrays):
        name = f"{number}.mp4" if names is None else names[number]
        count = 0 if one is None else len(one)
        views = [None] if count < 2 else list(range(count))
        parts = {} if one is None else {"view": views, "begin": [0.0] * count, "end": [1.0] * count}
        rows.append(clip_row(name, one, parts, error=None if count else "bad"))
    format = EMBEDDING_FORMATS[path.suffix[1:]](EmbeddingLayout.of(settings))
    path.write_bytes(b"".join(format.stream(rows)))
    return path
