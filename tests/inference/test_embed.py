"""Embeddings of every architecture, and their cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import make_clip
from tests.models.test_all_architectures import every_architecture, tiny, views
from vidcls.engines.embedding import EmbeddingRequest
from vidcls.engines.token_reader import classifier_layer, without_classifier
from vidcls.errors import UsageError
from vidcls.inference.embed import Embedder, Embedding
from vidcls.inference.feature_store import EmbeddingCache
from vidcls.inference.load import load_embedder


def embedder_of(model: str, **more: Any) -> Embedder:
    machine = {"device": "cpu", "engine": "eager", "precision": "fp32"}
    return load_embedder(EmbeddingRequest(per="view"), model=model, **{**machine, **more})


@every_architecture
@torch.no_grad()
def test_the_classifier_of_the_embedding_is_the_logits(architecture: str) -> None:
    model = tiny(architecture)
    logits = model(views())
    layer = classifier_layer(model)
    embeddings = without_classifier(model)(views())
    assert embeddings.shape == (3, layer.in_features)
    assert (layer(embeddings) - logits).abs().max() < 1e-5 * max(1.0, float(logits.abs().max()))
    assert torch.equal(model(views()), logits)


@every_architecture
def test_a_new_classifier_can_be_put_in_place(architecture: str) -> None:
    model = tiny(architecture)
    model.reset_head(7)
    assert classifier_layer(model).out_features == model.num_classes == model.config.num_classes == 7


def test_embeddings_of_a_clip(tmp_path: Path) -> None:
    import vidcls

    clip = make_clip(tmp_path / "clip.mp4", 80, size=(48, 64))
    embedder = embedder_of("camera-motion", num_views=2)
    found = embedder.embed(clip).vectors
    both = embedder.mirroring().embed(clip).vectors
    assert found.shape == (2, 128)
    assert found.dtype == np.float32
    assert both.shape == (4, 128)
    np.testing.assert_allclose(both[:2], found, atol=1e-5)
    assert np.abs(both[2:] - found).max() > 1e-3
    with vidcls.load("camera-motion", num_views=2, engine="eager", precision="fp32", device="cpu") as model:
        layer = classifier_layer(embedder.model_with(*classifier_of("camera-motion")))
        logits = layer(torch.from_numpy(found)).detach().numpy()
        np.testing.assert_allclose(logits.mean(0), model.predict(clip).logits, atol=1e-5)


def test_an_embedding_shows_itself_and_compares_only_with_its_like() -> None:
    first, second = (Embedding({"path": "<b>.mp4"}, np.ones((2, d), np.float32)) for d in (4, 6))
    assert first.similarity(first) == pytest.approx(1)
    with pytest.raises(UsageError, match="4 and 6 numbers cannot be compared"):
        first.similarity(second)
    shown = first._repr_html_()
    assert "&lt;b&gt;.mp4" in shown
    assert "data:image/png;base64," in shown


def classifier_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    from vidcls.zoo.find import find_model

    layer = classifier_layer(find_model(name).module())
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def test_what_an_embedding_depends_on_is_in_its_settings() -> None:
    base = embedder_of("camera-motion").settings()
    assert embedder_of("camera-motion").settings() == base
    assert embedder_of("camera-motion", num_views=7).settings() != base
    assert embedder_of("camera-motion", stride=3).settings() != base


def test_the_cache_holds_what_was_put_and_notices_changes(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 5)
    cache = EmbeddingCache(tmp_path / "cache", {"a": 1})
    assert cache.get(clip) is None
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.put(clip, rows)
    found = cache.get(clip)
    assert found is not None
    assert np.array_equal(found, rows)
    assert EmbeddingCache(tmp_path / "cache", {"a": 2}).get(clip) is None
    stored = cache.path(clip)
    for damage in (b"", b"\x93NUMPY", stored.read_bytes()[:-4], b"\x80\x04."):
        stored.write_bytes(damage)
        assert cache.get(clip) is None
    cache.put(clip, rows)
    os.utime(clip, ns=(1, 1))
    assert cache.get(clip) is None  # another file under the same name
    assert cache.get(tmp_path / "gone.mp4") is None


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 5)
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file", {})
    cache.put(clip, np.zeros((1, 2), np.float32))
    assert cache.get(clip) is None


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_arrays_of_another_type_are_not_taken(tmp_path: Path, dtype: type) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 5)
    cache = EmbeddingCache(tmp_path / "cache", {})
    cache.put(clip, np.zeros((1, 2), dtype))
    assert cache.get(clip) is None
