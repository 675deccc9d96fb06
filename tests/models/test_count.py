from __future__ import annotations

import pytest

from vidcls.config import load_registry
from vidcls.models import ARCHITECTURES
from vidcls.models.count import count_architecture

REGISTRY = load_registry()


@pytest.mark.parametrize("name", list(REGISTRY))
def test_the_registrys_figures_are_ours(name: str) -> None:
    """`ours` in models.yaml is what the entry builds: benchmarks/registry_figures.py --write puts it there."""
    spec = REGISTRY[name]
    assert spec.ours is not None
    found = count_architecture(spec.architecture, spec.config, spec.input.num_frames, spec.input.image_size)
    assert found.params == spec.ours.params
    assert found.macs / 1e9 == pytest.approx(spec.ours.gmacs, rel=1e-3)
    if spec.published.params:
        assert found.params == pytest.approx(spec.published.params, rel=0.03)
    if spec.published.gmacs:
        assert found.macs / 1e9 == pytest.approx(spec.published.gmacs, rel=0.05)


def test_every_architecture_has_an_entry() -> None:
    # An attentive probe is trained on top of another, and never published.
    assert {spec.architecture for spec in REGISTRY.values()} == set(ARCHITECTURES) - {"attentive"}
