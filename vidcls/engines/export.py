"""PyTorch model → OpenVINO model, through ``torch.export``.

Tried for ViViT-FE: tracing took 17 to 43 s, ``torch.export`` and OpenVINO's reader of its graph take 2 s each.
Most of that does not depend on the weights' size. The graph takes any number of views at once.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcls.engines.base import Floats, unit_frames
from vidcls.engines.openvino import HEAD, UNITS, WHOLE, OpenVINOEngine
from vidcls.errors import DependencyError, DeviceError

# Numbers in which logits of the converted model may differ from those of the one it was made of, as a share of
# the largest logit; what it takes in float32 is some 1e-6.
TOLERANCE = 1e-4
CHECKED_UNITS = 4


class _Units(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, units: Tensor) -> Tensor:
        features: Tensor = self.model.encode_frames(units)  # type: ignore[operator]
        return features[:, 0]


class _Head(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.model.classify(features)  # type: ignore[operator]
        return logits


class _IndexedHead(_Head):
    def forward(self, features: Tensor, frame_indices: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.model.classify(features, frame_indices)  # type: ignore[operator]
        return logits


def convert(model: nn.Module, num_frames: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Convert a model in eval mode and float32 on the CPU for views of one size.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`.
        num_frames: Frames of a view.
        image_size: Height and width of a view in pixels.

    Returns:
        Part → OpenVINO model: ``model`` (v, 3, t, h, w) → (v, k); or ``units`` (u, 3, unit, h, w) → (u, d) and
        ``head`` (v, t', d) → (v, k), which takes frame indices (v, t) too where the model uses them.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: The model cannot be converted.
    """
    unit = unit_frames(model)
    if not unit:
        return {WHOLE: _convert(model, [torch.zeros(2, 3, num_frames, *image_size)])}
    units = torch.zeros(2, 3, unit, *image_size)
    with torch.inference_mode():
        width = _Units(model)(units[:1]).shape[-1]
    features = torch.zeros(2, num_frames // unit, width)
    if getattr(model, "uses_frame_indices", False):
        indices = torch.arange(num_frames).expand(2, -1).contiguous()
        return {
            UNITS: _convert(_Units(model), [units]),
            HEAD: _convert(_IndexedHead(model), [features, indices]),
        }
    return {UNITS: _convert(_Units(model), [units]), HEAD: _convert(_Head(model), [features])}


def _convert(module: nn.Module, examples: list[Tensor]) -> Any:
    try:
        import openvino
        from openvino import frontend
    except ImportError:
        raise DependencyError("OpenVINO", "is not installed", "pip install 'vidcls[openvino]'") from None
    failures = (
        *(RuntimeError, ValueError, TypeError, AssertionError, torch._dynamo.exc.TorchDynamoException),
        *(frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
        *(frontend.OpConversionFailure, frontend.OpValidationFailure),
    )
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's and OpenVINO's own deprecations
            program = torch.export.export(
                module.eval(), tuple(examples), dynamic_shapes=tuple({0: batch} for _ in examples)
            )
            converted = openvino.convert_model(program)
        fixed = {i: [-1, *example.shape[1:]] for i, example in enumerate(examples)}
        converted.reshape(fixed)
    except failures as error:
        first = str(error).strip().partition("\n")[0][:300]
        raise DeviceError("OpenVINO", f"cannot convert this model ({first})", "use --engine eager") from error
    return converted


def check(model: nn.Module, engine: OpenVINOEngine, num_frames: int, image_size: tuple[int, int]) -> float:
    """Run both on the same noise, and return the largest difference of their logits.

    Where units are encoded by themselves a few different ones make up the view, so that the check stays cheap
    for hundreds of frames.

    Raises:
        DeviceError: They differ by more than rounding explains.
    """
    noise = np.random.default_rng(0)
    ours, theirs = _both(model, engine, num_frames, image_size, noise)
    error = float(np.abs(ours - theirs).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise DeviceError(
            "OpenVINO",
            f"its logits differ by {error:.1g} from those of PyTorch for this model",
            "use --engine eager, and please report it",
        )
    return error


def _both(
    model: nn.Module,
    engine: OpenVINOEngine,
    num_frames: int,
    image_size: tuple[int, int],
    noise: np.random.Generator,
) -> tuple[Floats, Floats]:
    unit = engine.unit_frames
    with torch.inference_mode():
        if not unit:
            view = noise.standard_normal((1, 3, num_frames, *image_size), np.float32)
            return engine(view), model(torch.from_numpy(view)).numpy()
        count = num_frames // unit
        units = noise.standard_normal((min(count, CHECKED_UNITS), 3, unit, *image_size), np.float32)
        places = np.arange(count) % len(units)
        indices = np.arange(num_frames)[None] if getattr(model, "uses_frame_indices", False) else None
        ours = engine.classify(engine.encode(units)[None, places], indices)
        features = _Units(model)(torch.from_numpy(units))[None, places]
        if indices is None:
            return ours, _Head(model)(features).numpy()
        return ours, _IndexedHead(model)(features, torch.from_numpy(indices)).numpy()
