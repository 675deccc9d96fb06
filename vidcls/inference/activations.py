"""From logits to scores: what a checkpoint's ``activation`` names. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidcls.engines import Floats


def softmax(logits: Floats) -> Floats:
    """Return the softmax of (..., k) over its last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(logits: Floats) -> Floats:
    """Return the logistic function of each logit."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"softmax": softmax, "sigmoid": sigmoid}
