"""Vectors of every architecture: each layer, for clips, views and frames, with and without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.models.test_all_architectures import (
    CLASSES,
    CONFIGS,
    FRAMES,
    SIZE,
    every_architecture,
    tiny,
    views,
)
from vidcls.engines import make_engine
from vidcls.engines.embedding import MirroredEngine, NumpyFrames, NumpyPooled
from vidcls.engines.token_reader import reader_of
from vidcls.errors import UsageError
from vidcls.models.tokens import first_tokens, grid_of, joined, last_tokens, outputs_of
from vidcls.zoo.facts import plain_config

WITH_CLASS_TOKEN = {
    *("attentive", "vivit-st", "vivit-fe", "vtn", "vit-frames", "t2t-frames", "timm-frames"),
    *(name for name in CONFIGS if name.startswith("timesformer")),
}


def engine_of(model: Any, layer: str, per: str) -> tuple[Any, int]:
    reader = reader_of(model, layer, per)
    return make_engine(reader, "cpu", "fp32", "eager"), reader.dimension


@every_architecture
@pytest.mark.parametrize("layer", ["head", "cls", "mean"])
def test_a_clip_shares_units_and_its_vectors_stay_the_same(architecture: str, layer: str) -> None:
    model = tiny(architecture)
    if (layer == "cls" and architecture not in WITH_CLASS_TOKEN) or (
        layer == "mean" and architecture == "vt-frames"
    ):
        with pytest.raises(UsageError, match=r"has no (class token|tokens)"):
            reader_of(model, layer, "view")
        return
    engine, dimension = engine_of(model, layer, "view")
    batch = views().numpy()
    whole = engine(batch)
    assert whole.shape == (3, dimension)
    assert np.isfinite(whole).all()
    if engine.unit_frames:
        units = batch.reshape(3, 3, -1, engine.unit_frames, *SIZE).transpose(0, 2, 1, 3, 4, 5)
        features = engine.encode(np.ascontiguousarray(units.reshape(-1, *units.shape[2:])))
        by_units = engine.classify(features.reshape(3, -1, features.shape[-1]))
        np.testing.assert_allclose(by_units, whole, atol=1e-5)
    # The model itself is as before.
    assert model(views()).shape == (3, CLASSES)


@every_architecture
def test_frames_have_vectors_whose_mean_is_the_views(architecture: str) -> None:
    model = tiny(architecture)
    if architecture == "vt-frames":
        return
    per_frame, dimension = engine_of(model, "mean", "frame")
    per_view, _ = engine_of(model, "mean", "view")
    found = per_frame(views().numpy()).reshape(3, -1, dimension)
    assert found.shape[1] == grid_of(model, FRAMES, SIZE)[0]
    np.testing.assert_allclose(found.mean(1), per_view(views().numpy()), atol=1e-5)


@every_architecture
def test_what_an_encoder_gives_for_a_frame_owes_nothing_to_the_others(architecture: str) -> None:
    model = tiny(architecture)
    if not hasattr(model, "encode_frames") or architecture == "videoprism":
        with pytest.raises(UsageError, match="layer=mean"):
            engine_of(model, "head", "frame")
        return
    engine, dimension = engine_of(model, "head", "frame")
    batch = views().numpy()
    before = engine(batch).reshape(3, -1, dimension)
    batch[:, :, -engine.unit_frames :] += 1
    after = engine(batch).reshape(3, -1, dimension)
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert np.abs(before[:, -1] - after[:, -1]).max() > 1e-3


@every_architecture
@torch.no_grad()
def test_tokens_are_where_their_pixels_are(architecture: str) -> None:
    """A change in one cell of a view changes the tokens that are said to be that cell's as they enter the model."""
    model = tiny(architecture)
    tokens = first_tokens(model)
    if tokens is None:
        assert architecture == "vt-frames"
        return
    grid = grid_of(model, FRAMES, SIZE)

    def placed(batch: torch.Tensor) -> torch.Tensor:
        with outputs_of(model, tokens.module) as outputs:
            model(batch)
        return tokens.arrange(joined(outputs), grid)[1][0]

    cell = tuple(count - 1 for count in grid)
    span = [size // count for size, count in zip((FRAMES, *SIZE), grid, strict=True)]
    first, changed = views(1), views(1)
    changed[:, :, -span[0] :, -span[1] :, -span[2] :] += 1
    moved = (placed(first) - placed(changed)).abs().sum(-1)
    assert moved.shape == grid
    if architecture == "t2t-frames":  # whose patches overlap and attend to one another
        assert set((moved > 1e-6).nonzero()[:, 0].tolist()) == {cell[0]}
    else:
        assert (moved > 1e-6).nonzero().tolist() == [list(cell)]


@torch.no_grad()
def test_last_tokens_follow_their_place_too() -> None:
    """Where attention is over time alone, a place's tokens owe nothing to the other places."""
    model = tiny("videoprism")
    tokens = last_tokens(model)
    assert tokens is not None
    features = torch.randn(1, 2, 6, 24)
    changed = features.clone()
    changed[:, :, 4] += torch.randn(24)  # the place (1, 1)
    found = []
    for one in (features, changed):
        with outputs_of(model, tokens.module) as outputs:
            model.classify(one.flatten(2))
        found.append(tokens.arrange(joined(outputs), (2, 2, 3))[1][0])
    moved = (found[0] - found[1]).abs().amax((0, 3))
    assert (moved > 1e-6).nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("per", ["view", "frame"])
def test_numpy_gives_the_vectors_of_pytorch(per: str) -> None:
    model = tiny("vivit-fe")
    tensors = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    kind = NumpyFrames if per == "frame" else NumpyPooled
    expected = engine_of(model, "head", per)[0](views().numpy())
    np.testing.assert_allclose(kind(tensors, plain_config(model))(views().numpy()), expected, atol=2e-5)


@pytest.mark.parametrize("architecture", ["vivit-fe", "vivit-st"])
def test_mirrored_vectors_are_those_of_mirrored_pictures(architecture: str) -> None:
    engine, dimension = engine_of(tiny(architecture), "head", "view")
    batch = views().numpy()
    both = MirroredEngine(engine)(batch)
    np.testing.assert_allclose(both[:, :dimension], engine(batch), atol=1e-6)
    np.testing.assert_allclose(both[:, dimension:], engine(batch[..., ::-1].copy()), atol=1e-6)
