"""int8: which layers stay as they are. That the whole of it answers alike is in ``tests/cli/test_export.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidcls.engines.quantize import quantize, readers_of_pixels

pytest.importorskip("nncf")


def patch_model() -> Any:
    """Patches of a picture by a convolution, a token that only knows the batch size, and a layer on both."""
    from openvino import Model
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    pixels = ops.parameter([-1, 3, 8, 8], np.float32, "pixels")
    filters = ops.constant(rng.normal(size=(16, 3, 4, 4)).astype(np.float32))
    patches = ops.convolution(pixels, filters, [4, 4], [0, 0], [0, 0], [1, 1], name="embed")
    tokens = ops.transpose(ops.reshape(patches, np.array([0, 16, 4]), special_zero=True), np.array([0, 2, 1]))
    batch = ops.gather(ops.shape_of(pixels), np.array([0]), np.array(0))
    shape = ops.concat([batch, np.array([1, 16], np.int64)], 0)
    extra = ops.broadcast(ops.constant(rng.normal(size=(1, 1, 16)).astype(np.float32)), shape)
    mixed = ops.concat([extra, tokens], 1)
    weights = ops.constant(rng.normal(size=(16, 16)).astype(np.float32))
    hidden = ops.matmul(mixed, weights, False, True, name="hidden")
    extra = ops.matmul(extra, weights, False, True, name="extra")
    logits = ops.reduce_mean(ops.add(ops.relu(hidden), extra), np.array([1]))
    return Model([logits], [pixels], "patches")


def stored(layer: Any) -> str:
    """Number format in which a layer's weights lie in the file."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name())


def test_i18_2_what_reads_the_pixels_stays_as_it_is() -> None:
    """A layer that only knows how many pictures there are does not read them."""
    assert readers_of_pixels(patch_model()) == ["embed"]
    inputs = [np.random.default_rng(i).normal(size=(1, 3, 8, 8)).astype(np.float32) for i in range(4)]
    small = quantize({"model": patch_model()}, inputs)["model"]
    layers = {node.get_friendly_name(): node for node in small.get_ordered_ops()}
    assert stored(layers["embed"]) == "f32"
    assert stored(layers["hidden"]) == "i8"
