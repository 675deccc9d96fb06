"""The banded Longformer against a dense one, against HF's, and its cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.models import longformer_dense as dense
from vidcls.errors import ConfigError
from vidcls.models import longformer
from vidcls.models.longformer import BLOCK, Longformer, band_mask
from vidcls.models.vtn_config import layer_windows

TOLERANCE = 2e-5
DIM, HIDDEN, HEADS, ROWS = 24, 40, 3, 20


def make(windows: tuple[int, ...], seed: int = 0) -> tuple[Longformer, dict[str, Tensor]]:
    weights = dense.random_weights(DIM, HIDDEN, len(windows), ROWS, seed)
    model = Longformer(DIM, len(windows), HEADS, HIDDEN, windows, ROWS, dropout=0.3, attn_dropout=0.3)
    model.load_state_dict(dense.our_names(weights))
    return model.eval(), weights


def inputs(batch: int, num_frames: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, 1 + num_frames, DIM, generator=generator)
    return tokens, torch.randint(0, 1000, (batch, num_frames), generator=generator)


@pytest.mark.parametrize(
    ("num_frames", "windows"),
    [
        (1, (4,)),
        (2, (2, 2)),
        (5, (18,)),
        (BLOCK - 1, (6, 2)),
        (BLOCK, (6, 2)),
        (BLOCK + 1, (6, 18)),
        (3 * BLOCK, (18,)),
        (3 * BLOCK + 7, (4, 18, 6)),
        (BLOCK + 3, (4 * BLOCK,)),
        (5 * BLOCK, (2 * BLOCK + 6,)),
    ],
)
def test_equals_the_dense_restatement(num_frames: int, windows: tuple[int, ...]) -> None:
    model, weights = make(windows)
    tokens, indices = inputs(2, num_frames)
    expected = dense.longformer(weights, tokens, indices, HEADS, windows)
    with torch.no_grad():
        got = model(tokens, indices)
        alone = model(tokens, indices, cls_only=True)
    assert (got - expected).abs().max() < TOLERANCE
    assert alone.shape == (2, 1, DIM)
    assert (alone - expected[:, :1]).abs().max() < TOLERANCE


@pytest.mark.parametrize("segment", [1, 5, 16, 69, 70])
def test_segments_leave_no_seam(segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longformer, "SEGMENT", segment)
    windows = (6, 18)
    model, weights = make(windows)
    tokens, indices = inputs(2, 70)
    with torch.no_grad():
        difference = model(tokens, indices) - dense.longformer(weights, tokens, indices, HEADS, windows)
    assert difference.abs().max() < TOLERANCE


def test_gradients_equal_those_of_the_dense_restatement() -> None:
    windows = (4, 6)
    model, weights = make(windows)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    tokens, indices = inputs(2, 2 * BLOCK + 5)
    (dense.longformer(leaves, tokens, indices, HEADS, windows).square().sum()).backward()
    model(tokens, indices).square().sum().backward()
    expected = dense.our_names({name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        scale = expected[name].abs().max().clamp(min=1)
        assert (parameter.grad - expected[name]).abs().max() / scale < 1e-4, name


@pytest.mark.parametrize(("frames", "half", "block"), [(7, 2, 3), (8, 3, 4), (1, 0, 1), (5, 4, 5)])
def test_band_mask_is_the_window(frames: int, half: int, block: int) -> None:
    mask = band_mask(frames, half, block, torch.device("cpu"))
    assert mask.shape == (-(-frames // block), block, block + 2 * half)
    seen = {
        (i * block + q, i * block + k - half)
        for i, q, k in mask.nonzero().tolist()
        if i * block + q < frames  # rows that only fill the last block up are cut off later
    }
    assert seen == {(q, k) for q in range(frames) for k in range(frames) if abs(q - k) <= half}


@pytest.mark.parametrize("window", [2, 6])
def test_frames_see_their_window_and_the_class_token_only(window: int) -> None:
    model, _ = make((window,))
    tokens, indices = inputs(1, 50)
    tokens.requires_grad_()
    out = model(tokens, indices)
    mask = dense.sees(51, window)
    for token in (0, 1, 2, 25, 50):
        (gradient,) = torch.autograd.grad(out[0, token, 0], tokens, retain_graph=True)
        seen = gradient[0].abs().sum(-1) > 0
        assert torch.equal(seen, mask[token]), token


@pytest.mark.parametrize(("length", "window"), [(16, 8), (41, 4), (64, 18), (29, 6)])
def test_equals_transformers(length: int, window: int) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LongformerConfig(
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        attention_window=[window, window],
        max_position_embeddings=ROWS,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        vocab_size=5,
        pad_token_id=0,
    )
    torch.manual_seed(2)
    theirs = transformers.LongformerModel(config, add_pooling_layer=False).eval()
    for parameter in theirs.parameters():  # HF's first weights are too small to tell a window from another
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {
        k: v for k, v in theirs.state_dict().items() if "word_embeddings" not in k and "position_ids" not in k
    }
    ours = Longformer(DIM, 2, HEADS, HIDDEN, window, ROWS).eval()
    ours.load_state_dict(dense.our_names(weights))

    tokens, indices = inputs(2, length - 1)
    fill = -length % window  # theirs wants whole windows, and hides what fills them up
    cls = torch.full((2, 1), ROWS - 2)
    positions = torch.cat([cls, indices % (ROWS - 2), torch.full((2, fill), ROWS - 1)], dim=1)
    visible = torch.cat([torch.ones(2, length), torch.zeros(2, fill)], dim=1).long()
    is_cls = torch.zeros(2, length + fill).long()
    is_cls[:, 0] = 1
    with torch.no_grad():
        expected = theirs(
            inputs_embeds=torch.cat([tokens, torch.full((2, fill, DIM), -1.0)], dim=1),
            attention_mask=visible,
            global_attention_mask=is_cls,
            token_type_ids=is_cls,
            position_ids=positions,
        ).last_hidden_state[:, :length]
        got = ours(tokens, indices)
    assert (got - expected).abs().max() < TOLERANCE


def flops(num_frames: int, cls_only: bool) -> int:
    with torch.device("meta"):
        model = Longformer(64, 2, 4, 128, 18, 288).eval()
        tokens = torch.zeros(1, 1 + num_frames, 64)
        indices = torch.zeros(1, num_frames, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens, indices, cls_only)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("cls_only", [False, True])
def test_work_grows_linearly(cls_only: bool) -> None:
    once, twice, four = (flops(t, cls_only) for t in (8 * BLOCK, 16 * BLOCK, 32 * BLOCK))
    assert once > 0
    assert four - twice == 2 * (twice - once)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest result of any operation."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def largest_tensor(num_frames: int) -> int:
    with torch.device("meta"):
        model = Longformer(64, 2, 4, 128, 18, 288).eval()
        tokens = torch.zeros(1, 1 + num_frames, 64)
        indices = torch.zeros(1, num_frames, dtype=torch.long)
    with torch.no_grad(), LargestTensor() as seen:
        model(tokens, indices)
    return seen.numel


def test_nothing_is_as_large_as_frames_squared() -> None:
    small, large = largest_tensor(1024), largest_tensor(16 * 1024)
    assert large <= 16 * small
    assert large < 16 * 1024 * 1024


def test_exports_and_is_the_same_alone_and_in_a_batch() -> None:
    model, _ = make((6, 4))
    tokens, indices = inputs(3, 40)
    with torch.no_grad():
        whole = model(tokens, indices)
        exported = torch.export.export(model, (tokens, indices)).module()
        assert (exported(tokens, indices) - whole).abs().max() < 1e-6
        for row in range(3):
            alone = model(tokens[row : row + 1], indices[row : row + 1])
            assert (alone - whole[row : row + 1]).abs().max() < 1e-5


def test_frame_indices_wrap_two_short_of_the_table() -> None:
    model, _ = make((4,))
    tokens, indices = inputs(1, 12)
    with torch.no_grad():
        assert torch.equal(model(tokens, indices), model(tokens, indices + ROWS - 2))
        assert (model(tokens, indices) - model(tokens, indices + 1)).abs().max() > 1e-3


def test_global_projections_begin_as_the_local_ones() -> None:
    attn = Longformer(8, 1, 2, 16, 4, 10).get_submodule("layers.0.attn")
    assert torch.equal(attn.get_parameter("qkv_global.weight"), attn.get_parameter("qkv.weight"))
    assert attn.get_parameter("qkv_global.weight") is not attn.get_parameter("qkv.weight")


@pytest.mark.parametrize("window", [0, -2, 7, (4, 5), (4, 4, 4)])
def test_impossible_windows_are_refused(window: int | tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="attention_window"):
        layer_windows(window, 2)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="temporal_num_heads"):
        Longformer(10, 1, 3, 16, 4, 10)
    with pytest.raises(ConfigError, match="max_positions"):
        Longformer(10, 1, 2, 16, 4, 2)
