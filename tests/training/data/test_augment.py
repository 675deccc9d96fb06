"""Augmentation: every draw holds for the whole clip, and each operation does what the published one does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vidcls.config import InputSpec
from vidcls.training.data import augment as a
from vidcls.training.recipe import Augment, Color

SPEC = InputSpec(num_frames=4, image_size=(24, 24), resize=32)


def clip(frames: int = 4, height: int = 32, width: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)


def still(frames: int = 4) -> Tensor:
    return clip(1).expand(frames, -1, -1, -1).contiguous()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tall(frames: Tensor) -> Image.Image:
    """All frames of a clip in one picture, one below the other."""
    return Image.fromarray(frames.permute(0, 2, 3, 1).reshape(-1, frames.shape[-1], 3).numpy())


@pytest.mark.parametrize("name", a.OPERATIONS)
def test_an_operation_is_the_same_for_every_frame(name: str) -> None:
    out = a.apply_operation(still(), name, 12, rng())
    assert out.shape == (4, 3, 32, 40)
    assert out.dtype == torch.uint8
    assert all(torch.equal(out[0], frame) for frame in out)


@pytest.mark.parametrize(
    ("name", "magnitude"),
    [("auto_contrast", 15), ("equalize", 15), ("invert", 15), ("posterize", 10), ("solarize", 5)],
)
def test_an_operation_agrees_with_pillow_on_the_tall_picture(name: str, magnitude: float) -> None:
    frames = (clip().float() * 0.6 + 30).to(torch.uint8)
    pillow = {
        "auto_contrast": lambda p: ImageOps.autocontrast(p),
        "equalize": lambda p: ImageOps.equalize(p),
        "invert": lambda p: ImageOps.invert(p),
        "posterize": lambda p: ImageOps.posterize(p, 4),
        "solarize": lambda p: ImageOps.solarize(p, 128),
    }[name]
    expected = np.asarray(pillow(tall(frames))).astype(int)
    got = np.asarray(tall(a.apply_operation(frames, name, magnitude, rng()))).astype(int)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("brightness", ImageEnhance.Brightness),
    ],
)
@pytest.mark.parametrize("magnitude", [3, 10, 15])
def test_enhancements_agree_with_pillow(name: str, enhancer: type, magnitude: float) -> None:
    frames = clip()
    factor = magnitude / 10 * 1.8 + 0.1
    expected = np.asarray(enhancer(tall(frames)).enhance(factor)).astype(int)
    got = np.asarray(tall(a.apply_operation(frames, name, magnitude, rng()))).astype(int)
    assert np.abs(got - expected).max() <= 3  # Pillow rounds the gray picture first


def test_strengths_of_the_published_recipes() -> None:
    """At magnitude 15 scenic keeps 6 bits and solarises nothing; at 20 it keeps all 8."""
    frames = clip()
    assert torch.equal(a.apply_operation(frames, "posterize", 15, rng()), frames & 0b11111100)
    assert torch.equal(a.apply_operation(frames, "posterize", 20, rng()), frames)
    assert torch.equal(a.apply_operation(frames, "solarize", 15, rng()), frames)
    added = a.apply_operation(frames, "solarize_add", 15, rng()).int()
    expected = torch.where(frames < 128, (frames.int() + 165).clamp(max=255), frames.int())
    assert torch.equal(added, expected)


def test_cutout_blackens_one_place_in_all_frames() -> None:
    out = a.cutout(torch.full((4, 3, 64, 64), 9, dtype=torch.uint8), 8, rng(3))
    black = (out == 0).all(1)
    assert all(torch.equal(black[0], frame) for frame in black)
    ys, xs = black[0].nonzero(as_tuple=True)
    assert 0 < int(black[0].sum()) <= 16 * 16
    assert int(black[0].sum()) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)  # a box


def test_randaugment_draws_each_operation_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def note(frames: Tensor, name: str, magnitude: float, rng: np.random.Generator) -> Tensor:
        drawn.append(name)
        return frames

    monkeypatch.setattr(a, "apply_operation", note)
    generator = rng()
    for _ in range(1200):
        a.rand_augment(clip(), 2, 15, generator)
    counts = [drawn.count(name) for name in a.OPERATIONS]
    assert len(a.OPERATIONS) == 12
    assert sum(counts) == 2400
    assert min(counts) > 140
    assert max(counts) < 260


def test_color_jitter_treats_all_frames_alike_and_stays_in_range() -> None:
    frames = still().float() / 255
    changed = 0
    for seed in range(30):
        out = a.jitter_color(frames, Color(), rng(seed))
        assert all(torch.allclose(out[0], frame) for frame in out)
        changed += not torch.equal(out, frames)
    assert 15 < changed < 30  # 82 % of clips
    gray = a.jitter_color(frames, Color(probability=0, grayscale=1), rng())
    assert torch.equal(gray[:, 0], gray[:, 1])


def test_flips_are_off_where_directions_matter() -> None:
    plain = Augment(random_crop=False, flip=1.0)
    flipped = a.augment_clip(clip(), SPEC, plain, rng())
    kept = a.augment_clip(clip(), SPEC, plain.model_copy(update={"directions_matter": True}), rng())
    assert torch.equal(flipped, kept.flip(-1))
    assert torch.equal(kept, a.normalize(a.crop(clip(), (24, 24), None), SPEC))


def test_random_crops_reach_every_corner() -> None:
    frames = torch.arange(5 * 6).view(1, 1, 5, 6).expand(1, 3, 5, 6)
    corners = {int(a.crop(frames, (4, 4), rng(seed))[0, 0, 0, 0]) for seed in range(60)}
    assert corners == {0, 1, 2, 6, 7, 8}


def test_a_clip_smaller_than_the_crop_is_stretched() -> None:
    assert a.crop(clip(height=20, width=60), (24, 24), rng()).shape == (4, 3, 24, 24)


def test_sides_are_scaled_independently_and_never_below_the_crop() -> None:
    sizes = [a.scale_sides(clip(), (0.9, 1.33), (24, 24), rng(seed)).shape[-2:] for seed in range(60)]
    ratios = {round(h / w, 1) for h, w in sizes}
    assert len(ratios) > 4
    assert all(28 <= h <= 43 and 36 <= w <= 54 for h, w in sizes)
    assert a.scale_sides(clip(), (0.1, 0.2), (24, 24), rng()).shape[-2:] == (24, 24)


@pytest.mark.parametrize("inverse", [False, True])
def test_short_side_is_drawn_from_its_range(inverse: bool) -> None:
    setting = Augment(short_side=(256, 320), inverse_short_side=inverse)
    generator = rng()
    sides = [a.draw_short_side(setting, generator) or 0 for _ in range(4000)]
    assert min(sides) == 256
    assert max(sides) == 320
    # Of 1 / U(1/320, 1/256) the mean is ln(320/256) / (1/256 - 1/320).
    assert np.mean(sides) == pytest.approx(285.6 if inverse else 288, abs=1)
    assert a.draw_short_side(Augment(), rng()) is None


def test_normalization_is_that_of_the_views() -> None:
    from vidcls.views.transform import make_views, plan_clips

    spec = InputSpec(
        num_frames=4, stride=1, num_views=1, image_size=(24, 24), resize=None, scale=1 / 255, offset=0,
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), channels="bgr",
    )  # fmt: skip
    frames = clip(height=24, width=24)
    plan = plan_clips(spec, num_frames=4, fps=25)
    views = make_views(frames.permute(0, 2, 3, 1).contiguous().numpy(), np.arange(4), plan, spec)
    torch.testing.assert_close(a.normalize(frames, spec), torch.from_numpy(views[0]), atol=1e-5, rtol=1e-5)


def test_soft_targets_sum_to_one() -> None:
    targets = a.soft_targets(torch.tensor([0, 2]), 4, 0.2)
    torch.testing.assert_close(targets[0], torch.tensor([0.85, 0.05, 0.05, 0.05]))
    torch.testing.assert_close(targets.sum(1), torch.ones(2))


def test_mixup_has_one_share_for_a_batch() -> None:
    x = torch.arange(8.0).view(4, 2)
    torch.testing.assert_close(a.mix(x, 0.75), 0.75 * x + 0.25 * x.flip(0))
    assert a.mix(x, 1.0) is x
    assert a.mixup_share(0.0, rng()) == 1.0
    shares = [a.mixup_share(0.3, rng(seed)) for seed in range(500)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.6), rel=0.15)  # of Beta(0.3, 0.3)


def test_labels_of_directions_are_noticed() -> None:
    labels = [
        "pan left",
        "RIGHT turn",
        "roll counter-clockwise",
        "anticlockwise",
        "turn_leftward",
        "bright",
        "leftover",
    ]
    assert a.directional(labels) == labels[:5]
    assert a.directional(["swim", "copyright", "uprightness"]) == []
