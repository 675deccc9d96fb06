"""A clip → an `Explanation`, by any of the methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Engine, Floats
from vidcls.errors import UsageError, nearest, printable
from vidcls.explain.explanation import METHODS, Explanation
from vidcls.explain.occlusion import DEFAULT_CELLS, Cells, Target, occlude
from vidcls.inference.clip import Clip
from vidcls.inference.shared_units import cut_clip
from vidcls.views.transform import pixel_scale_shift

if TYPE_CHECKING:
    from vidcls.config import ModelSpec
    from vidcls.engines.select import EngineRequest
    from vidcls.zoo.find import Found

RANK = "rank "
MAX_CELLS = 20_000  # of one view
Progress = Callable[[int, int], None]  # cells covered, cells in all


@dataclass(frozen=True)
class Scored:
    """A clip and what the model said of it.

    Attributes:
        name: Of the clip.
        clip: Read, ready to be cut.
        spec: The model, with how it sees a video.
        labels: One per class.
        scores: (k,) averaged over the views.
        uses_frame_indices: Whether the model takes the frames' numbers.
        warnings: Of the model and of the clip.
    """

    name: str
    clip: Clip
    spec: ModelSpec
    labels: Sequence[str]
    scores: Floats
    uses_frame_indices: bool
    warnings: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether each class is a question of its own, so that its logit is its log-odds."""
        return self.spec.input.activation == "sigmoid"


def explain(
    scored: Scored,
    engine: Engine,
    origin: Callable[[], tuple[Found, EngineRequest]],
    target: str | int | None = None,
    method: str = "gradient",
    cells: Cells | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain one clip; see `vidcls.inference.classifier.Classifier.explain`.

    Args:
        scored: The clip.
        engine: Runs the model, for ``occlusion``.
        origin: Returns the model itself, for the other methods.
        target: As there.
        method: As there.
        cells: As there.
        progress: Called as ``occlusion`` advances.
    """
    if method not in METHODS:
        raise UsageError(
            "method",
            f"{method!r} is not known{nearest(method, METHODS)}",
            f"choose from {', '.join(METHODS)}",
        )
    if cells is not None and method != "occlusion":
        raise UsageError(
            "cells", f"is not for method={method}, whose cells are the model's own", "leave it out"
        )
    if cells is not None and not (len(cells) == 3 and all(isinstance(one, int) for one in cells)):
        raise UsageError("cells", f"{cells!r} is not (t, h, w)", "give three whole numbers")
    index = class_of(target, scored.labels, scored.scores)
    views = cut_clip(scored.clip, 0)
    indices = scored.clip.view_indices if scored.uses_frame_indices else None
    if method == "occlusion":
        heat = _by_occlusion(engine, views, indices, (index, scored.alone), cells, progress)
    else:
        heat = _by_attention(origin(), views, indices, (index, scored.alone), method)
    frames, times = _pictures(views), scored.clip.info.timestamps[scored.clip.view_indices]
    score = float(scored.scores[index])
    return Explanation(
        scored.name,
        scored.spec.name,
        method,
        scored.labels[index],
        index,
        score,
        heat,
        frames,
        times,
        scored.warnings,
    )


def class_of(target: str | int | None, labels: Sequence[str], scores: Floats) -> int:
    """Return the index of the class that is meant: a label, ``rank N``, an index, or None for the best.

    Raises:
        UsageError: There is no such class.
    """
    order = np.argsort(-scores, kind="stable")
    if target is None:
        return int(order[0])
    if not isinstance(target, (str, int)) or isinstance(target, bool):
        raise UsageError("target", f"{target!r} is neither a label nor an index", "name a label, or rank N")
    if isinstance(target, int):
        if not 0 <= target < len(labels):
            raise UsageError("target", f"{target} is not an index of {len(labels)} classes", "count from 0")
        return target
    if target in labels:
        return list(labels).index(target)
    if target.startswith(RANK) and target[len(RANK) :].isdecimal() and len(target) < 16:
        rank = int(target[len(RANK) :])
        if 1 <= rank <= len(labels):
            return int(order[rank - 1])
        raise UsageError("target", f"there is no rank {rank} among {len(labels)} classes", "count from 1")
    known = printable(target[:100])
    raise UsageError(
        "target",
        f"{known!r} is not a label of this model{nearest(target, labels)}",
        "name a label, or rank N",
    )


def _by_occlusion(
    engine: Engine,
    views: Any,
    indices: NDArray[np.int64] | None,
    target: Target,
    cells: Cells | None,
    progress: Progress | None,
) -> Floats:
    first = views[0:1][0]
    most = (first.shape[0] // (engine.unit_frames or 1), *first.shape[1:3])
    wanted: Any = tuple(min(a, b) for a, b in zip(cells or DEFAULT_CELLS, most, strict=True))
    each = int(np.prod(wanted))
    if each > MAX_CELLS or min(wanted) < 1:
        raise UsageError("cells", f"{wanted} make {each:,} cells for each view", f"choose 1 to {MAX_CELLS:,}")
    done, found = 0, []

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, each * len(views))

    for number in range(len(views)):
        view = np.ascontiguousarray(views[number : number + 1][0])
        own = None if indices is None else indices[number]
        found.append(occlude(engine, view, own, pixel_scale_shift(views.clip.spec), target, wanted, tell))
    return np.stack(found)


def _by_attention(
    origin: tuple[Found, EngineRequest],
    views: Any,
    indices: NDArray[np.int64] | None,
    target: Target,
    method: str,
) -> Floats:
    from vidcls.engines import choose_device
    from vidcls.explain.attention import explain_view

    found, request = origin
    if found.artifact is not None:
        problem = f"method={method} needs the model itself, not what was exported of it"
        raise UsageError(found.source, problem, "give its checkpoint, or use method=occlusion")
    if request.merge_tokens:
        problem = f"method={method} follows all tokens"
        raise UsageError("merge_tokens", problem, "leave it out, or use method=occlusion")
    import torch

    device = choose_device(request.device)
    module = found.module().to(device).eval()
    kind = next(module.parameters()).dtype
    heat = []
    normalized = views.clip.views
    for number in range(len(views)):
        view = torch.from_numpy(normalized[number : number + 1]).to(device=device, dtype=kind)
        own = None if indices is None else torch.from_numpy(indices[number : number + 1]).to(device)
        one = explain_view(module, view, own, target, method)
        heat.append(one / max(float(one.sum()), 1e-30))
    return np.stack(heat)


def _pictures(views: Any) -> NDArray[np.uint8]:
    """The views' pixels (v, t, h, w, 3) as RGB."""
    pixels = views[:]
    if views.clip.spec.channels == "bgr":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
