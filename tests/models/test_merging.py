"""Token merging: the paper's rule, what it leaves exactly as it is, and where it is refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vidcls
from tests.models.test_all_architectures import CONFIGS, FRAMES, tiny
from vidcls.errors import UsageError
from vidcls.models.count import count_architecture
from vidcls.models.layers import Block, run_blocks
from vidcls.models.merging import MergingBlocks, merge, merge_tokens, token_counts
from vidcls.models.merging_config import MERGEABLE
from vidcls.score.setup import Setup

CLIP = Path(__file__).parents[2] / "examples" / "pan-left.mp4"
every_mergeable = pytest.mark.parametrize("architecture", list(MERGEABLE))


def blocks(depth: int = 3, dim: int = 12) -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(Block(dim, 3) for _ in range(depth)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made


def by_the_paper(
    x: Tensor, keys: Tensor, sizes: list[float], count: int, keep_first: bool
) -> dict[frozenset[int], Tensor]:
    """Bipartite soft matching written out for one example: which tokens make up each merged one → its value."""
    n = len(x)
    sources, targets = range(0, n, 2), range(1, n, 2)
    edges = []
    for a in sources:
        if keep_first and a == 0:
            continue
        alike = {b: float(F.cosine_similarity(keys[a], keys[b], dim=0)) for b in targets}
        best = max(alike, key=lambda b: alike[b])
        edges.append((alike[best], a, best))
    groups = {i: [i] for i in range(n)}
    for _, a, b in sorted(edges, reverse=True)[:count]:
        groups[b] += groups.pop(a)
    return {
        frozenset(members): sum(x[i] * sizes[i] for i in members) / sum(sizes[i] for i in members)  # type: ignore[misc]
        for members in groups.values()
    }


@pytest.mark.parametrize("keep_first", [False, True])
@pytest.mark.parametrize(("tokens", "count"), [(10, 3), (11, 4), (8, 4), (5, 1), (2, 1)])
def test_pairs_and_averages_are_the_papers(tokens: int, count: int, keep_first: bool) -> None:
    torch.manual_seed(tokens)
    x, keys = torch.randn(3, tokens, 4, dtype=torch.float64), torch.randn(3, tokens, 5, dtype=torch.float64)
    sizes = torch.randint(1, 4, (3, tokens, 1)).double()
    merged, new_sizes, place = merge(x, keys, sizes, count, keep_first)
    for example in range(3):
        expected = by_the_paper(x[example], keys[example], sizes[example, :, 0].tolist(), count, keep_first)
        assert merged.shape[1] == new_sizes.shape[1] == len(expected)
        for token in range(merged.shape[1]):
            members = frozenset((place[example] == token).nonzero().flatten().tolist())
            torch.testing.assert_close(merged[example, token], expected[members])
            assert new_sizes[example, token, 0] == sum(sizes[example, i, 0] for i in members)
    if keep_first:
        torch.testing.assert_close(merged[:, 0], x[:, 0])
        assert torch.equal(place[:, 0], torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("keep_first", [False, True])
def test_tokens_that_say_the_same_merge_without_a_trace(keep_first: bool) -> None:
    """Proportional attention: a pair of equal tokens counts as two, also after they were merged."""
    plain = blocks()
    x = torch.randn(2, 6, 12, dtype=torch.float64).repeat_interleave(2, dim=1)
    if keep_first:  # the class token, and one that has no twin, in front
        x = torch.cat([torch.randn(2, 2, 12, dtype=torch.float64), x], dim=1)
    merging = MergingBlocks(plain, 6 / x.shape[1], keep_first)
    with torch.no_grad():
        torch.testing.assert_close(merging.run(x, False), run_blocks(plain, x, False), rtol=0, atol=1e-9)
        first = merging.run(x, True)
        assert first.shape[1] == 1
        torch.testing.assert_close(first[:, 0], run_blocks(plain, x, True)[:, 0], rtol=0, atol=1e-9)


def test_how_many_are_left() -> None:
    assert token_counts(1568, 12, 0.5) == [1319, 1109, 932, *[784] * 9]
    assert token_counts(100, 1, 0.9) == [56]  # no block merges more than each second token
    assert token_counts(100, 6, 0.9)[-1] == 10
    assert token_counts(1, 3, 0.5) == [1, 1, 1]
    for depth, share in ((1, 0.5), (4, 0.3), (12, 0.9)):
        counts = [997, *token_counts(997, depth, share)]
        assert all(after >= math.floor(before / 2) for before, after in itertools.pairwise(counts))


@every_mergeable
def test_no_share_changes_no_bit(architecture: str) -> None:
    model, views = tiny(architecture), torch.randn(2, 3, FRAMES, 16, 24)
    with torch.inference_mode():
        before = model(views)
        assert merge_tokens(model, 0.0) is model
        assert torch.equal(model(views), before)
    assert not any(isinstance(part, MergingBlocks) for part in model.modules())


@every_mergeable
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_architecture_merges(architecture: str, dtype: torch.dtype) -> None:
    model = tiny(architecture).to(dtype)
    views = torch.randn(3, 3, FRAMES, 16, 24).to(dtype)
    seen: list[int] = []
    with torch.inference_mode():
        exact = model(views)
        names = list(model.state_dict())
        merge_tokens(model, 0.5)
        assert list(model.state_dict()) == names  # checkpoints of it stay what they were
        (merging,) = (part for part in model.modules() if isinstance(part, MergingBlocks))
        handle = merging[-1].norm2.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[1]))
        merged = model(views)
        handle.remove()
        alone = torch.cat([model(view[None]) for view in views])
    assert merged.shape == exact.shape
    assert merged.isfinite().all()
    assert (merged - exact).abs().max() > 0
    tokens = 6 * FRAMES if "fe" not in architecture and "frames" not in architecture else 6
    assert max(seen) <= tokens / 2 + 1
    if dtype == torch.float64:  # another clip in the batch does not matter
        torch.testing.assert_close(alone, merged, rtol=0, atol=1e-9)


def test_the_count_is_of_the_tokens_that_are_left() -> None:
    sizes = {
        **CONFIGS["videomae"],
        "image_size": (16, 24),
        "num_frames": FRAMES,
        "num_classes": 5,
        "depth": 6,
    }
    whole, half = (
        count_architecture("videomae", sizes, FRAMES, (16, 24), share).macs for share in (0.0, 0.5)
    )
    assert 0.5 * whole < half < 0.75 * whole


@pytest.mark.parametrize("architecture", sorted(CONFIGS.keys() - MERGEABLE.keys()))
def test_other_architectures_refuse(architecture: str) -> None:
    with pytest.raises(UsageError, match=f"{architecture} cannot merge tokens.*vivit-st"):
        merge_tokens(tiny(architecture), 0.5)


def test_shares_that_make_no_sense() -> None:
    for share in (-0.1, 0.95, math.nan):
        with pytest.raises(UsageError, match="not a share"):
            merge_tokens(tiny("videomae"), share)


@pytest.mark.parametrize("engine", ["numpy", "openvino", "compile", "onnxruntime", "pt2"])
def test_engines_of_a_fixed_graph_refuse(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidcls.engines.is_installed", lambda package: True)
    with pytest.raises(UsageError, match=f"the engine {engine} cannot merge tokens; use engine=eager"):
        vidcls.load(engine=engine, merge_tokens=0.5)


def test_rows_say_it_and_auto_takes_eager() -> None:
    with vidcls.load(merge_tokens=0.5, clips=1) as merging, vidcls.load(engine="eager") as exact:
        merged: Any = merging.predict(CLIP)
        plain: Any = exact.predict(CLIP)
        assert merging.engine.name == "eager"
        assert merged.row["predictions"][0]["label"] == plain.row["predictions"][0]["label"]
        assert 0 < abs(merged.scores - plain.scores).max() < 0.1
        assert "token merging: 0.5" in merged.row["warnings"][0]
        # `vidcls score` does not go on with rows that were scored otherwise.
        assert Setup({}).describe(merging)["merge_tokens"] == 0.5
        assert "merge_tokens" not in Setup({}).describe(exact)
