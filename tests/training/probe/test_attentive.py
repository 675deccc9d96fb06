"""`vidcls train --probe --probe-kind attentive`: pooler and head train, and every command takes the checkpoint."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.training.moving import make_folder
from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.cli.app import app
from vidcls.errors import ConfigError, UsageError
from vidcls.inference.embed import Embedder
from vidcls.inference.load import load
from vidcls.models import build
from vidcls.models.vjepa2 import AttentivePooler
from vidcls.paths import cache_dir
from vidcls.training.pooler import attend
from vidcls.training.probe.attentive import AttentiveLearner
from vidcls.training.probe.figures import SeveralFigures
from vidcls.training.probe.run import ProbeResult, train_probe
from vidcls.training.probe.tokens import Tokens, TokenSet, half
from vidcls.training.recipe import Recipe
from vidcls.training.trainer import Trainer, train
from vidcls.zoo.find import find_model

SMALL: dict[str, Any] = {
    "image_size": 16, "num_frames": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 7,
}  # fmt: skip
VTN = {
    "backbone": {"embed_dim": 12, "depth": 1, "num_heads": 2, "patch_size": 8},
    "image_size": 16, "num_frames": 4, "num_classes": 7, "attention_window": 2, "temporal_depth": 1,
    "temporal_num_heads": 3, "max_positions": 12,
}  # fmt: skip
# What a backbone is built of, and how many tokens the pooler sees.
BACKBONES: dict[str, tuple[dict[str, Any], int]] = {
    "vivit-st": ({**SMALL, "tubelet_size": (2, 8, 8)}, 1 + 2 * 4),
    "vivit-fe": ({**SMALL, "tubelet_size": (2, 8, 8), "temporal_depth": 1}, 1 + 2),
    "timesformer-divided": ({**SMALL, "patch_size": 8}, 1 + 4 * 4),
    "videomae": ({**SMALL, "tubelet_size": (2, 8, 8)}, 2 * 4),
    "vjepa2": ({**SMALL, "tubelet_size": (2, 8, 8), "pooler_depth": 1}, 2 * 4),
    "videoprism": ({**SMALL, "tubelet_size": (1, 8, 8), "temporal_depth": 1}, 4 * 4),
    "vit-frames": ({**SMALL, "patch_size": 8}, 4 * (1 + 4)),
    "vtn": (VTN, 1 + 4),
}


@pytest.mark.parametrize("architecture", BACKBONES)
def test_a_pooler_on_every_model_of_tokens_is_saved_and_loaded(architecture: str, tmp_path: Path) -> None:
    config, count = BACKBONES[architecture]
    backbone = build(architecture, **config)
    probe: Any = attend(backbone, 3).eval()
    assert isinstance(probe.pooler, AttentivePooler)
    seen: list[torch.Tensor] = []
    probe.pooler.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    views = torch.randn(2, 3, 4, 16, 16)
    logits = probe(views)
    assert logits.shape == (2, 3)
    assert seen[0].shape == (2, count, 12)
    ours, theirs = probe.backbone.state_dict(), backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    save_checkpoint(probe, tmp_path / "probe.safetensors")
    loaded = load_checkpoint(tmp_path / "probe.safetensors").eval()
    torch.testing.assert_close(loaded(views), logits)


def test_other_sizes_than_the_checkpoints_are_interpolated_in_the_backbone(tmp_path: Path) -> None:
    backbone = build("vivit-st", **SMALL, tubelet_size=(2, 8, 8))
    save_checkpoint(backbone, tmp_path / "backbone.safetensors")
    save_checkpoint(attend(backbone, 3), tmp_path / "probe.safetensors")
    sizes: Any = {"image_size": 24, "num_frames": 6}
    larger = load_checkpoint(tmp_path / "probe.safetensors", **sizes).eval()
    assert larger(torch.randn(1, 3, 6, 24, 24)).shape == (1, 3)
    alone = load_checkpoint(tmp_path / "backbone.safetensors", **sizes).get_parameter("encoder.pos_embed")
    assert torch.equal(larger.get_parameter("backbone.encoder.pos_embed"), alone)


def test_a_frozen_backbone_is_left_as_in_inference() -> None:
    probe = attend(build("vivit-st", **SMALL, tubelet_size=(2, 8, 8), dropout=0.5), 3)
    backbone = probe.get_submodule("backbone")
    assert backbone.training
    backbone.requires_grad_(False)
    probe.train()
    assert probe.get_submodule("pooler").training
    assert not any(module.training for module in backbone.modules())


def test_what_has_no_tokens_or_holds_a_probe_is_refused() -> None:
    axial = build("vt-frames", image_size=32, variant="vt-resnet18", width=4, map_dim=24, token_dim=24)
    with pytest.raises(UsageError, match="vt-frames has no tokens of patches; use probe_kind=linear"):
        attend(axial, 3)
    several = build("vjepa2", **SMALL, tubelet_size=(2, 8, 8), pooler_depth=0, clips_per_view=2)
    with pytest.raises(UsageError, match="several clips"):
        attend(several, 3)
    with pytest.raises(ConfigError, match="cannot have another one"):
        build("attentive", backbone_architecture="attentive", backbone={})
    with pytest.raises(ConfigError, match="its parameters take"):
        build("attentive", backbone_architecture="vivit-st", embed_dim=1 << 20, num_heads=16)
    with pytest.raises(ConfigError, match="no such architecture: 'x'"):
        build("attentive", backbone_architecture="x")


def test_a_run_that_was_interrupted_ends_as_the_whole_one(recipe: Any, folder: Path, tmp_path: Path) -> None:
    plan = recipe(attentive=True, val=str(folder), config={"dropout": 0.2}, schedule={"epochs": 1})
    whole = train(plan, tmp_path / "whole", device="cpu", quiet=True)
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        Trainer(plan, tmp_path / "broken", device="cpu", quiet=True).run(stop)
    rest = train(plan, tmp_path / "broken", resume=True, device="cpu", quiet=True)
    ours, theirs = load_file(whole.weights), load_file(rest.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def probe(clips: Path, out: Path, **changes: Any) -> ProbeResult:
    settings = {"data": str(clips), "attentive": True, "schedule": {"epochs": 8}, "input": {"num_views": 2}}
    return train_probe(Recipe.model_validate({**settings, **changes}), out, device="cpu", quiet=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("attentive") / "set", 5)


def test_the_checkpoint_predicts_what_was_trained_and_a_second_run_decodes_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[AttentiveLearner, TokenSet, Any]] = []
    fit = AttentiveLearner.fit

    def keep(self: AttentiveLearner, given: TokenSet, *what: str) -> Any:
        trained.append((self, given, fit(self, given, *what)))
        return trained[-1][2]

    monkeypatch.setattr(AttentiveLearner, "fit", keep)
    first = probe(clips, tmp_path / "one")
    learner, given, state = trained[0]
    wanted = learner.logits(state, given)
    with load(first.weights, engine="eager", precision="fp32", device="cpu") as model:
        for index in range(0, len(given), 4):
            # Tokens are kept with 11 bits.
            found = model.predict(given.paths[index]).logits
            np.testing.assert_allclose(found, wanted[index], atol=0.02)
    assert len(trained) == 4  # all clips, and three folds

    def read(self: Embedder, clip: Any, *more: Any) -> Any:
        raise AssertionError(f"{clip} is decoded again")

    monkeypatch.setattr(Embedder, "read", read)
    again = probe(clips, tmp_path / "two")
    assert again.figures == first.figures
    assert all(torch.equal(again.probe[name], first.probe[name]) for name in first.probe)
    on_disk = Tokens(given.tokens._cache, mirrors=False)
    monkeypatch.setattr(given.tokens, "_held", {})
    assert np.array_equal(on_disk.of(given.paths[0], own=True), given.views(0))


def test_sources_are_on_one_side_of_the_folds(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.array([0, 0, 1, 1, 2, 2] * 2)
    given = TokenSet(None, tuple("abcdefghijkl"), np.arange(12) // 6, groups)  # type: ignore[arg-type]
    seen = []

    def fit(self: Any, train: TokenSet, what: str = "") -> None:
        seen.append(set(train.groups))

    def logits(self: Any, state: Any, test: TokenSet) -> Any:
        assert not seen[-1] & set(test.groups)
        return np.zeros((len(test), 2))

    monkeypatch.setattr(AttentiveLearner, "fit", fit)
    monkeypatch.setattr(AttentiveLearner, "logits", logits)
    learner = object.__new__(AttentiveLearner)
    learner.recipe, learner.num_classes = Recipe(), 2
    found = learner.cross_validated(given)
    assert found is not None
    assert found[1] == len(seen) == 3


def test_tokens_that_do_not_fit_are_refused_before_much_is_done(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cache_tokens: the tokens of 15 clips take .* GB, not 1e-06"):
        probe(clips, tmp_path / "run", token_cache=1e-6, input={"num_views": 3})
    assert len(list((cache_dir() / "tokens").glob("*"))) <= 30
    assert not (tmp_path / "run").exists()


def test_folds_beside_a_validation_set_are_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds: there is no cross-validation beside a validation set"):
        probe(clips, tmp_path / "run", folds=4, val=str(clips))


def test_large_numbers_stay_finite() -> None:
    assert np.array_equal(half(np.array([1e9, -1e9, 0.5], np.float32)), np.array([65504, -65504, 0.5]))


def test_several_labels_and_every_setting_of_the_training(clips: Path, tmp_path: Path) -> None:
    labels = {"down": "vertical", "left": "horizontal|leftward", "right": "horizontal"}
    rows = [f"{clip},{labels[clip.parent.name]}" for clip in sorted(clips.rglob("*.mp4"))]
    (tmp_path / "list.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    trained = {
        name: probe(tmp_path / "list.csv", tmp_path / name, schedule={"epochs": 4}, folds=2, **changes)
        for name, changes in {
            "plain": {},
            "ema": {"ema": 0.99},
            "balanced": {"class_weights": "balanced"},
            "smooth": {"label_smoothing": 0.2},
            "clipped": {"clip_grad": 1e-3},
            "decayed": {"optimizer": {"weight_decay": 0.5}},
            "batches": {"batch_size": 4},
            "seed": {"seed": 1},
        }.items()
    }
    plain = trained["plain"]
    assert isinstance(plain.figures, SeveralFigures)
    assert plain.figures.method == "2-fold cross-validation"
    for name, other in trained.items():
        if name != "plain":
            assert not torch.equal(other.probe["head.weight"], plain.probe["head.weight"]), name
    checkpoint = read_checkpoint(plain.weights)
    assert checkpoint.input is not None
    assert (checkpoint.labels, checkpoint.input["activation"]) == (
        ("horizontal", "leftward", "vertical"),
        "sigmoid",
    )


def test_the_command(tmp_path: Path) -> None:
    clips, out = make_folder(tmp_path / "set", 5), tmp_path / "run"
    options = ["--epochs", "2", "--device", "cpu", "-o", str(out)]
    done = CliRunner().invoke(app, ["train", str(clips), "--probe", "--probe-kind", "attentive", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / "best.safetensors")
    assert "95 % interval" in done.stderr
    assert "by 3-fold cross-validation" in done.stderr
    figures = json.loads((out / "probe.json").read_text())["figures"]
    assert figures["clips"] == sum(map(sum, figures["confusion"])) == 15
    stored = read_checkpoint(out / "best.safetensors")
    assert (stored.architecture, stored.labels) == ("attentive", ("down", "left", "right"))
    weights = load_file(out / "best.safetensors")
    published = find_model("camera-motion").module().state_dict()
    kept = {name for name in weights if name.startswith("backbone.")}
    assert all(torch.equal(weights[name], published[name.removeprefix("backbone.")]) for name in kept)
    clip = str(next(clips.rglob("*.mp4")))
    predicted = CliRunner().invoke(app, ["predict", clip, "--weights", str(out / "best.safetensors")])
    assert predicted.exit_code == 0, predicted.output
    alone = CliRunner().invoke(
        app, ["train", str(clips), "--probe-kind", "attentive", "-o", str(tmp_path / "x")]
    )
    assert alone.exit_code == 2
    assert "--probe: is missing, and --probe-kind needs it" in alone.stderr
