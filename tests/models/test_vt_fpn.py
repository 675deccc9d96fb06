"""VT-FPN: what it costs beside what is published, and its later modules written out."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_visual_transformer import count, macs, spread, tiny
from vidcls.models.resnet import ResNet
from vidcls.models.visual_transformer import VTFPN, RecurrentTokenizer, VTConfig


def fpn_gmacs(height: int, width: int, **config: object) -> float:
    """Multiply-adds (10⁹) of the pyramid alone, on ResNet-50."""
    with torch.device("meta"):
        below = macs(ResNet("resnet50").eval(), torch.empty(1, 3, height, width))
    return count("vt-fpn-resnet50", height, width, **config)[1] - below


@pytest.mark.parametrize(("height", "width", "gmacs"), [(800, 1216, 8.5), (473, 473, 2.0)])
def test_fpn_costs_what_is_published(height: int, width: int, gmacs: float) -> None:
    assert fpn_gmacs(height, width) == pytest.approx(gmacs, rel=0.05)
    # A second module, with recurrent tokenizers, is further from what is published; the docstring shows both.
    assert fpn_gmacs(height, width, fpn_modules=2) > 1.05 * gmacs


def test_the_docstring_of_vt_fpn_has_the_figures() -> None:
    for modules in (1, 2):
        with torch.device("meta"):
            model = VTFPN(VTConfig("vt-fpn-resnet50", fpn_modules=modules))
        params = sum(p.numel() for p in model.parameters()) - sum(
            p.numel() for p in model.resnet.parameters()
        )
        costs = [fpn_gmacs(*size, fpn_modules=modules) for size in ((800, 1216), (473, 473))]
        row = " | ".join(f"{value:.2f}" for value in (*costs, params / 1e6))
        assert f"| {modules} | {row} |" in str(VTFPN.__doc__)


@torch.no_grad()
def test_i15_5_later_modules_of_vt_fpn_are_recurrent() -> None:
    """Equations (2) to (5) over four levels, written out: each level's filters come from its own tokens."""
    model = tiny("vt-fpn-resnet18", token_dim=20, fpn_modules=2).eval()
    fpn = spread(model.backbone).double()
    assert isinstance(fpn, VTFPN)
    assert isinstance(fpn.later[0].tokenizers[0], RecurrentTokenizer)
    frames = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    maps = [
        lateral(grid).flatten(2).transpose(1, 2)
        for grid, lateral in zip(fpn.resnet(frames), fpn.laterals, strict=True)
    ]
    tokens: list[torch.Tensor] = []
    for module in (fpn, fpn.later[0]):
        filters = [
            torch.einsum("blt,ct->blc", tokens[i], tokenizer.token_filter.weight)
            if tokens
            else tokenizer.filter.weight.expand(2, -1, -1)
            for i, tokenizer in enumerate(module.tokenizers)
        ]
        together = torch.cat(
            [
                torch.einsum(
                    "bnl,bnc,tc->blt", torch.einsum("bnc,blc->bnl", x, f).softmax(1), x, own.value.weight
                )
                for x, f, own in zip(maps, filters, module.tokenizers, strict=True)
            ],
            1,
        )
        tokens = list(module.transformer(together).chunk(4, 1))
        maps = [
            x
            + torch.einsum("bnc,dc,blt,dt->bnl", x, own.query.weight, t, own.key.weight).softmax(2)
            @ torch.einsum("blt,ct->blc", t, own.value.weight)
            for x, t, own in zip(maps, tokens, module.projectors, strict=True)
        ]
    torch.testing.assert_close(fpn(frames), torch.cat([x.mean(1) for x in maps], 1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fpn.tokens(frames)[0], torch.cat(tokens, 1), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_vt_fpn_of_two_modules_shows_where_both_look() -> None:
    _, maps = tiny("vt-fpn-resnet18", fpn_modules=2).eval().tokens(torch.randn(2, 3, 48, 80))
    assert maps.shape == (2, 8, 4, 12, 20)
    torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, 8, 4))


def test_every_parameter_of_two_modules_gets_a_gradient() -> None:
    model = tiny("vt-fpn-resnet18", fpn_modules=2)
    model(torch.randn(2, 3, 2, 64, 64)).square().sum().backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ] == []
